"""Profiled iterations: one trace, one table, the same training."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import PLUGIN, assert_equal, losses, run, stop_at, weights
from vidseg.engine import profile_hook
from vidseg.errors import ConfigError

pytestmark = pytest.mark.usefixtures("fresh_plugins")

CHECKOUT = Path(__file__).resolve().parents[2]
PROFILED = ("SOLVER.PROFILE.ENABLED", "True", "SOLVER.PROFILE.NUM_ITERS", "2")


def steps_of(trace: Path) -> int:
    """Counts the iterations in a trace; each updates the weights once."""
    with gzip.open(trace) as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return sum(str(event.get("name", "")).startswith("Optimizer.step") for event in events)


def traces(output: Path) -> dict[str, int]:
    folder = output / "profile"
    return {path.name: steps_of(path) for path in sorted(folder.iterdir())}


def test_a_trace_and_a_table_and_nothing_else_changes(config: Path, tmp_path: Path) -> None:
    assert run(config, "OUTPUT_DIR", tmp_path / "plain") == 0
    assert not (tmp_path / "plain" / "profile").exists()
    out = tmp_path / "out"
    start = ("SOLVER.PROFILE.START_ITER", "3")
    assert run(config, "OUTPUT_DIR", out, *PROFILED, *start) == 0
    assert traces(out) == {"trace_00004-00005.json.gz": 2}
    log = (out / "log.txt").read_text()
    assert "2 iterations from 4 on, per iteration (MiB: allocated less freed):" in log
    assert "| (Python)" in log
    assert "ProfilerStep" not in log
    assert "| operator" in log
    assert "| aten::" in log
    assert "CPU MiB" in log
    assert_equal(weights(tmp_path / "plain"), weights(out))
    assert losses(tmp_path / "plain") == losses(out)


def test_the_first_iterations_have_no_warm_up(config: Path, tmp_path: Path) -> None:
    assert run(config, "OUTPUT_DIR", tmp_path, *PROFILED, "SOLVER.PROFILE.START_ITER", 0) == 0
    assert traces(tmp_path) == {"trace_00001-00002.json.gz": 2}


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        pytest.param(2, {"trace_00003-00006.json.gz": 4}, marks=pytest.mark.slow),
        (4, {"trace_00003-00004.json.gz": 2, "trace_00005-00006.json.gz": 2}),
        pytest.param(7, {"trace_00003-00006.json.gz": 4}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_records_what_is_to_come(
    stop: int, expected: dict[str, int], config: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    words = (*PROFILED[:2], "SOLVER.PROFILE.NUM_ITERS", 4, "SOLVER.PROFILE.START_ITER", 2)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        assert run(config, "OUTPUT_DIR", tmp_path, *words) == 128 + 15
    assert run(config, "OUTPUT_DIR", tmp_path, *words) == 0
    assert traces(tmp_path) == expected
    assert ("nothing is profiled" in (tmp_path / "log.txt").read_text()) == (stop == 7)


def test_a_run_may_be_profiled_from_its_middle_on(
    config: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        run(config, "OUTPUT_DIR", tmp_path)
    assert run(config, "OUTPUT_DIR", tmp_path, *PROFILED, "SOLVER.PROFILE.START_ITER", 5) == 0
    assert traces(tmp_path) == {"trace_00006-00007.json.gz": 2}


def test_iterations_that_do_not_come_are_told(config: Path, tmp_path: Path) -> None:
    assert run(config, "OUTPUT_DIR", tmp_path, *PROFILED, "SOLVER.PROFILE.START_ITER", 8) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "nothing is profiled: the run has iterations 1 to 8, and SOLVER.PROFILE asks for" in log
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize(("key", "value", "least"), [("NUM_ITERS", 0, 1), ("START_ITER", -1, 0)])
def test_numbers_out_of_range(
    key: str, value: int, least: int, config: Path, tmp_path: Path
) -> None:
    said = rf"SOLVER\.PROFILE\.{key} is {value}; set {least} or more"
    with pytest.raises(ConfigError, match=said):
        run(config, "OUTPUT_DIR", tmp_path, *PROFILED, f"SOLVER.PROFILE.{key}", value)


def test_a_full_disk_does_not_end_the_run(config: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(profile_hook, "write_atomically", fail)
    assert run(config, "OUTPUT_DIR", tmp_path, *PROFILED, "SOLVER.PROFILE.START_ITER", 1) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "No space left on device" in log
    assert "the run goes on" in log
    assert (tmp_path / "model_final.pth").is_file()


@pytest.mark.slow
def test_of_several_processes_one_writes(config: Path, tmp_path: Path) -> None:
    words = ("--num-gpus", "2", "--config-file", config, "--plugin", PLUGIN, "OUTPUT_DIR", tmp_path)
    start = ("SOLVER.PROFILE.START_ITER", "2")
    done = subprocess.run(
        [sys.executable, CHECKOUT / "tools" / "train_net.py", *words, *PROFILED, *start],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert traces(tmp_path) == {"trace_00003-00004.json.gz": 2}
