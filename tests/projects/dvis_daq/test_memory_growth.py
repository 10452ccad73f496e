"""The largest resident memory of a process does not grow with the length of the video."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys
import torch
from benchmarks.measure import own_peak
from benchmarks.long_video import SMALL, prepare_predict, prepare_stream
torch.set_num_threads(1)
kind, num_frames, memory_mb = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if kind == "offline":
    key = "MODEL.REFINER.MEMORY_MB"
    result = prepare_predict(kind, num_frames, (128, 192), [*SMALL, key, float(memory_mb)])()
    assert result.num_frames == num_frames and len(result)
else:
    assert prepare_stream(num_frames, (128, 192), SMALL)() > 10
print(own_peak())
"""


def peak(kind: str, num_frames: int, *, memory_mb: float = 8) -> float:
    command = [sys.executable, "-c", PROGRAM, kind, str(num_frames), str(memory_mb)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


@pytest.mark.slow
def test_an_offline_video_takes_the_same_memory_at_any_length() -> None:
    short = peak("offline", 40)
    assert peak("offline", 400) < 1.08 * short
    # That would be seen: mask features alone are 390 kB per frame.
    assert peak("offline", 400, memory_mb=1e6) > 1.15 * short


@pytest.mark.slow
def test_a_stream_takes_the_same_memory_at_any_length() -> None:
    assert peak("online", 400) < 1.03 * peak("online", 40)
