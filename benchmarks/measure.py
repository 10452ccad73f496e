"""Runs both sides of a case in turn and compares what they used."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vidseg.host_memory import keep_freed_memory

from .case import Case, Prepare, Run

__all__ = ["Figure", "MeasureError", "Usage", "measure", "measure_call", "own_peak", "prepare"]

CHECKOUT = Path(__file__).resolve().parents[1]
_SIDES = ("ours", "theirs")


class MeasureError(Exception):
    """Reports that a side of a case did not run to its end."""


@dataclass(frozen=True)
class Usage:
    """What a call used.

    Args:
        cpu: CPU seconds, of this process and those it waited for.
        peak: largest resident memory of any one of them since they started, in MiB.
    """

    cpu: float
    peak: float


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Args:
        name: of the case.
        quantity: ``"cpu"`` in seconds or ``"peak"`` in MiB.
        ours: median of our repetitions.
        peer: median of the peer's.
        ratio: of the medians, peer / ours for time and ours / peer for memory.
        spread: smallest and largest ratio of a repetition to that of the peer beside it.
        bar: what the ratio should reach: at least for time, at most for memory.
        samples: all repetitions by side.
    """

    name: str
    quantity: str
    ours: float
    peer: float
    ratio: float
    spread: tuple[float, float]
    bar: float
    samples: dict[str, list[float]]

    @property
    def reached(self) -> bool:
        """Whether the ratio keeps the promise."""
        return self.ratio >= self.bar if self.quantity == "cpu" else self.ratio <= self.bar

    def as_json(self) -> dict[str, object]:
        """Gives all fields and whether the bar is reached."""
        return {**asdict(self), "reached": self.reached}


def measure(case: Case, *, repeats: int | None = None) -> list[Figure]:
    """Measures a case: warm-ups, then both sides in turn, so that a slow minute hits both.

    Args:
        case: what to run.
        repeats: measured repetitions of each side; None takes the case's own number.

    Returns:
        A figure for each quantity of the case.

    Raises:
        MeasureError: if a side fails in its own process.
    """
    repeats = case.repeats if repeats is None else repeats
    fresh = "peak" in case.bars
    sides = _in_fresh_processes(case) if fresh else _in_this_process(case)
    usages: dict[str, list[Usage]] = {side: [] for side in _SIDES}
    for _ in range(repeats):
        for side in _SIDES:
            usages[side].append(sides[side]())
    return [_figure(case, quantity, usages) for quantity in case.bars]


def measure_call(run: Run) -> Usage:
    """Measures one call."""
    before = _cpu_seconds()
    run()
    seconds = _cpu_seconds() - before
    return Usage(seconds, max(own_peak(), _peak_of(resource.RUSAGE_CHILDREN)))


def own_peak() -> float:
    """Gives the largest resident memory of this process so far, in MiB.

    The figure that ``getrusage`` has on Linux is no smaller than what the parent had in memory when
    it started the process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / (1 << 10)
    return _peak_of(resource.RUSAGE_SELF)


def _peak_of(kind: int) -> float:
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(kind).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def prepare(build: Prepare, warmups: int) -> Run:
    """Builds a side from a fixed seed and warms it up."""
    import torch

    torch.manual_seed(0)
    run = build()
    for _ in range(warmups):
        run()
    return run


def _in_this_process(case: Case) -> dict[str, Callable[[], Usage]]:
    # Otherwise clearing fresh pages, which hits either side at random, is half of the spread.
    keep_freed_memory()
    runs = {side: prepare(getattr(case, side), case.warmups) for side in _SIDES}
    return {side: lambda run=run: measure_call(run) for side, run in runs.items()}  # type: ignore


def _in_fresh_processes(case: Case) -> dict[str, Callable[[], Usage]]:
    return {side: lambda side=side: _run_child(case, side) for side in _SIDES}  # type: ignore


def _run_child(case: Case, side: str) -> Usage:
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.child", case.name, side],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MeasureError(f"{side} of {case.name} failed: {said[-1]}")
    return Usage(**json.loads(done.stdout.splitlines()[-1]))


def _cpu_seconds() -> float:
    used = [resource.getrusage(k) for k in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _figure(case: Case, quantity: str, usages: dict[str, list[Usage]]) -> Figure:
    samples = {side: [getattr(u, quantity) for u in usages[side]] for side in _SIDES}

    def ratio(ours: float, theirs: float) -> float:
        return theirs / ours if quantity == "cpu" else ours / theirs

    ours, theirs = (statistics.median(samples[side]) for side in _SIDES)
    pairs = [ratio(*pair) for pair in zip(*samples.values(), strict=True)]
    return Figure(
        name=case.name,
        quantity=quantity,
        ours=ours,
        peer=theirs,
        ratio=ratio(ours, theirs),
        spread=(min(pairs), max(pairs)),
        bar=case.bars[quantity],
        samples=samples,
    )
