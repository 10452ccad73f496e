"""The command line of ablations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.support import PLUGIN, make_dataset, write_config

TOOL = str(Path(__file__).parents[2] / "tools" / "ablation.py")


def ablation(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, TOOL, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = write_config(tmp_path, make_dataset(tmp_path / "data", num_videos=2))
    variants = tmp_path / "ablation"
    variants.mkdir()
    (variants / "slow.yaml").write_text("_BASE_: ../toy.yaml\nSOLVER: {BASE_LR: 0.001}\n")
    return path


def test_help_imports_little() -> None:
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({TOOL!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'vidseg.plugins'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "python tools/ablation.py --config-file" in done.stdout


def test_overrides_may_follow_lists(config: Path) -> None:
    words = ("--config-file", config, "--plugin", PLUGIN, "--list")
    done = ablation(*words, "--only", "slow", "--seeds", 1, 2, "SOLVER.MAX_ITER", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{name}, seed {seed}: {change}"
        for seed in (1, 2)
        for name, change in (("toy", "complete"), ("slow", "SOLVER.BASE_LR: 0.01 -> 0.001"))
    ]
    done = ablation(*words, "--only", "slow", "SOLVER.MAX_ITR", 3)
    assert done.returncode == 2
    assert "did you mean MAX_ITER" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", "one"), "--seeds: 'one' is no seed"),
        (("--seeds", "-1"), "--seeds"),
        (("--only", "slo"), "no variant 'slo'; nearest: slow"),
        (("--output", "x", "OUTPUT_DIR", "y"), "use --output"),
    ],
)
def test_a_wrong_command_line_is_refused(config: Path, words: tuple, message: str) -> None:
    done = ablation("--config-file", config, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_table_is_shown(config: Path, tmp_path: Path) -> None:
    words = ("--plugin", PLUGIN, "--output", tmp_path / "out", "SOLVER.MAX_ITER", 1)
    done = ablation("--config-file", config, *words)
    assert done.returncode == 0, done.stderr
    assert "ablation, run 2 of 2: slow, seed 42" in done.stdout
    assert done.stdout.rstrip().endswith(f"-> {tmp_path / 'out' / 'ablation.md'}")
    assert "| slow      | SOLVER.BASE_LR: 0.01 -> 0.001 | 1      |" in done.stdout
