"""SIGKILL at five moments over the three stages of DVIS-DAQ changes no loss and no weight."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.chain import (
    MAX_ITER,
    PERIOD,
    STAGES,
    assert_same_weights,
    command,
    folder_of,
    losses,
    make_data,
    run,
)

# The stage in which each kill falls; when exactly is drawn.
KILLS = ("segmenter", "segmenter", "online", "online", "offline")


def num_lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def kill_in(words: list[str], folder: Path, done: int, least: int, wait: float) -> int:
    """Starts the command and kills it some time after the stage has made a new step.

    Args:
        words: the command.
        folder: of the stage.
        done: lines that are there already.
        least: lines that there must be.
        wait: seconds from the first new step to the kill.

    Returns:
        How many steps the stage had logged when it was killed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    try:
        last = done
        while process.poll() is None:
            now = num_lines(folder)
            # Resuming first cuts the lines back to the checkpoint.
            if (now > last and now >= least) or now >= MAX_ITER:
                break
            last = now
            time.sleep(0.01)
        time.sleep(wait)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr and process.stderr.read()
    return num_lines(folder)


@pytest.mark.slow
def test_killed_five_times(tmp_path: Path) -> None:
    data, whole, killed = make_data(tmp_path), tmp_path / "whole", tmp_path / "killed"
    started = time.monotonic()
    done = run(command(data, whole))
    assert done.returncode == 0, done.stderr
    lines = [num_lines(folder_of(whole, stage)) for stage in STAGES]
    assert lines == [MAX_ITER] * 3
    # Drawn from the clock of this very run, so that the moments differ between machines.
    step = (time.monotonic() - started) / (6 * MAX_ITER)
    seed = time.time_ns() % 2**32
    print(f"seed of the moments: {seed}")
    rng = random.Random(seed)
    for number, stage in enumerate(KILLS):
        resume = ["--resume"] if number % 2 else []
        folder = folder_of(killed, stage)
        before = num_lines(folder)
        wait = rng.uniform(0, 3 * step)
        # Every other kill leaves a checkpoint.
        least = PERIOD + 1 if number % 2 else 1
        after = kill_in(command(data, killed, *resume), folder, before, least, wait)
        print(f"killed {wait:.3f} s after a step of {stage}, which had logged {after} steps")
    done = run(command(data, killed, "--resume"))
    assert done.returncode == 0, done.stderr
    logs = [(folder_of(killed, stage) / "log.txt").read_text() for stage in STAGES[:2]]
    assert all("resuming from" in log for log in logs)
    for stage in STAGES:
        assert losses(folder_of(killed, stage)) == losses(folder_of(whole, stage)), stage
        assert_same_weights(folder_of(killed, stage), folder_of(whole, stage))
    assert not list(killed.rglob(".*.tmp"))
