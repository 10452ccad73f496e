"""Where the time and the memory of training iterations go: a trace and a table."""

from __future__ import annotations

import gzip
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from vidseg.errors import ConfigError
from vidseg.files import write_atomically

from .hooks import Hook

if TYPE_CHECKING:
    from vidseg.config import CfgNode

    from .trainer import Trainer

__all__ = ["ProfileHook"]

logger = logging.getLogger(__name__)

_NUM_ROWS = 15


class ProfileHook(Hook):
    """Records some iterations, then writes a trace and logs the operators that took longest.

    The trace is ``trace_<first>-<last>.json.gz``, iterations as the log counts them, for
    https://ui.perfetto.dev or chrome://tracing. A resumed run records what of these iterations is
    still to come; what a stopped run has recorded of them is written, too.

    Args:
        folder: for the trace; made when there is one.
        start: iterations before the first that is recorded.
        num_iters: how many are recorded.
    """

    def __init__(self, folder: Path, *, start: int, num_iters: int) -> None:
        self.folder = folder
        self.start = start
        self.stop = start + num_iters
        self._profile: Any = None
        self._first = 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ProfileHook:
        """Reads ``SOLVER.PROFILE`` and ``OUTPUT_DIR``.

        Raises:
            ConfigError: if no iteration is to be recorded.
        """
        node = cfg.SOLVER.PROFILE
        for key, least in (("START_ITER", 0), ("NUM_ITERS", 1)):
            if node[key] < least:
                raise ConfigError(f"SOLVER.PROFILE.{key} is {node[key]}; set {least} or more")
        folder = Path(cfg.OUTPUT_DIR) / "profile"
        return cls(folder, start=node.START_ITER, num_iters=node.NUM_ITERS)

    def before_train(self, trainer: Trainer) -> None:
        """Tells if nothing will be recorded; else begins, if it is time."""
        if trainer.iteration >= self.stop or self.start >= trainer.max_iter:
            logger.warning(
                "nothing is profiled: the run has iterations %d to %d, and SOLVER.PROFILE asks for"
                " %d to %d",
                trainer.iteration + 1,
                trainer.max_iter,
                self.start + 1,
                self.stop,
            )
            return
        self._begin_in_time(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Begins before the first iteration to record, ends after the last."""
        if self._profile is None:
            self._begin_in_time(trainer)
            return
        self._profile.step()
        if trainer.iteration == self.stop:
            self._end(trainer)

    def after_train(self, trainer: Trainer) -> None:
        """Writes what there is if the run ends earlier."""
        if self._profile is not None:
            self._end(trainer)

    def _begin_in_time(self, trainer: Trainer) -> None:
        """Begins an iteration early, if it can: the first one carries the profiler's own start."""
        if not max(self.start - 1, 0) <= trainer.iteration < self.stop:
            return
        warmup = int(trainer.iteration < self.start)
        self._first = trainer.iteration + warmup
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no warm-up, where there is no time
            plan = schedule(wait=0, warmup=warmup, active=self.stop - self._first, repeat=1)
        self._profile = profile(
            activities=_activities(next(trainer.model.parameters()).device),
            schedule=plan,
            profile_memory=True,
        )
        self._profile.start()

    def _end(self, trainer: Trainer) -> None:
        recorded, self._profile = self._profile, None
        recorded.stop()
        if trainer.iteration <= self._first:
            return  # stopped within the warm-up
        file = self.folder / f"trace_{self._first + 1:05}-{trainer.iteration:05}.json.gz"
        count = trainer.iteration - self._first
        logger.info(
            "%d iterations from %d on, per iteration (MiB: allocated less freed):\n%s",
            count,
            self._first + 1,
            _table(recorded.key_averages(), count),
        )
        try:
            _write_trace(recorded.export_chrome_trace, file)
        except OSError as error:
            logger.error("the trace %s could not be written (%s); the run goes on", file, error)
        else:
            logger.info("trace %s (ui.perfetto.dev shows it)", file)


def _activities(device: torch.device) -> list[ProfilerActivity]:
    """Gives the kinds of events of a device, those of the CPU with them."""
    own = getattr(ProfilerActivity, device.type.upper(), None)
    kinds = [ProfilerActivity.CPU, *([own] if own is not None else [])]
    return list(dict.fromkeys(kinds))


def _write_trace(export: Callable[[str], object], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.json"
        export(str(plain))

        def write(target: Any) -> None:
            with plain.open("rb") as source, gzip.open(target, "wb") as packed:
                shutil.copyfileobj(source, packed)

        write_atomically(file, write)


def _table(events: Sequence[Any], count: int) -> str:
    """Formats the operators that took the most time themselves, on the device if it has its own."""
    from tabulate import tabulate

    on_device = any(event.self_device_time_total for event in events)
    key = "self_device_time_total" if on_device else "self_cpu_time_total"
    total = sum(getattr(event, key) for event in events) or 1
    top = sorted(events, key=lambda event: -getattr(event, key))[:_NUM_ROWS]
    rows = [
        [
            "(Python)" if event.key.startswith("ProfilerStep") else event.key[:60],
            f"{event.count / count:.1f}",
            f"{event.self_cpu_time_total / count / 1e3:.2f}",
            f"{event.cpu_time_total / count / 1e3:.2f}",
            *([f"{event.self_device_time_total / count / 1e3:.2f}"] if on_device else []),
            f"{100 * getattr(event, key) / total:.1f}",
            f"{event.self_cpu_memory_usage / count / 2**20:.2f}",
            *([f"{event.self_device_memory_usage / count / 2**20:.2f}"] if on_device else []),
        ]
        for event in top
    ]
    header = [
        "operator",
        "calls",
        "CPU ms",
        "with inner",
        *(["device ms"] if on_device else []),
        "%",
        "CPU MiB",
        *(["device MiB"] if on_device else []),
    ]
    align = ("left", *["right"] * (len(header) - 1))
    return str(tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align))
