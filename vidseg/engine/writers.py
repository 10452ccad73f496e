"""Where the numbers of a run go: a JSON file, TensorBoard, Weights & Biases.

A writer takes ``write(iteration, scalars)`` and ``close()``; ``WRITERS`` maps the names that the
config key of the same name may list.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vidseg.errors import ConfigError, nearest
from vidseg.files import write_atomically

__all__ = [
    "METRICS_LINES",
    "WRITERS",
    "JsonLinesWriter",
    "TensorBoardWriter",
    "WandbWriter",
    "Writer",
    "open_all",
]

METRICS_LINES = "metrics.jsonl"

logger = logging.getLogger(__name__)


class Writer(Protocol):
    """Receives the scalars of a run."""

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Takes the scalars after ``iteration`` steps."""

    def close(self) -> None:
        """Puts everything on disk."""


class JsonLinesWriter:
    """Writes one JSON object per line to ``metrics.jsonl``.

    Lines that a full disk refuses are kept and written with the next one; no half line stays.

    Args:
        directory: the run directory.
        start: iteration the run starts at; later lines of an interrupted run are dropped.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.path = directory / METRICS_LINES
        _drop_later_lines(self.path, start)
        self._unwritten = b""

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Appends a line.

        Raises:
            OSError: if it cannot be written now.
        """
        # JSON knows no nan.
        values = {name: v if math.isfinite(v) else None for name, v in scalars.items()}
        self._unwritten += json.dumps({"iteration": iteration, **values}).encode() + b"\n"
        self.close()

    def close(self) -> None:
        """Writes what is left.

        Raises:
            OSError: if that is not possible.
        """
        if not self._unwritten:
            return
        with open(self.path, "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            rest = memoryview(self._unwritten)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)
                raise
        self._unwritten = b""


class TensorBoardWriter:
    """Writes TensorBoard events; without the package it says so once and stays silent.

    Args:
        directory: the run directory.
        start: iteration the run starts at; later events are hidden.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.directory = directory
        self.start = start
        self._events: Any = None

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars as events; the package is imported by the first call."""
        if self._events is None:
            self._events = self._open()
        for name, value in scalars.items():
            if self._events:
                self._events.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Flushes the events."""
        if self._events:
            self._events.close()

    def _open(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info("tensorboard is not installed: no events are written")
            return False
        return SummaryWriter(str(self.directory), purge_step=self.start or None)


class WandbWriter:
    """Sends the scalars to Weights & Biases; project and mode come from its own environment.

    Args:
        directory: the run directory, whose name becomes the run's.
        start: iteration the run starts at.

    Raises:
        ConfigError: if the package is not installed.
    """

    def __init__(self, directory: Path, start: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "WRITERS lists wandb, which is not installed: pip install 'vidseg[wandb]'"
            ) from error
        kept = directory / "wandb_id"
        if start == 0 or not kept.is_file():
            kept.write_text(wandb.util.generate_id())
        name, identity = directory.resolve().name, kept.read_text()
        self._run = wandb.init(dir=str(directory), name=name, id=identity, resume="allow")

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Logs the scalars at the given step."""
        self._run.log(dict(scalars), step=iteration)

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()


WRITERS: dict[str, Callable[[Path, int], Writer]] = {
    "jsonl": JsonLinesWriter,
    "tensorboard": TensorBoardWriter,
    "wandb": WandbWriter,
}


def open_all(names: Sequence[str], directory: Path, start: int) -> list[Writer]:
    """Opens the writers of the given names.

    Raises:
        ConfigError: if a name is unknown.
    """
    for name in names:
        if name not in WRITERS:
            guess = ", ".join(nearest(name, WRITERS) or WRITERS)
            raise ConfigError(f"WRITERS: {name!r} is unknown; nearest: {guess}")
    return [WRITERS[name](directory, start) for name in names]


def _drop_later_lines(path: Path, start: int) -> None:
    """Keeps the lines up to the iteration at which the run goes on; half a line is dropped too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["iteration"] <= start:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    text = "".join(f"{line}\n" for line in kept)
    write_atomically(path, lambda file: file.write(text.encode()))
