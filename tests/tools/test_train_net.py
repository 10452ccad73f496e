"""The training command as a user runs it: exit codes, messages, time, processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.support import PLUGIN, make_dataset, write_config
from vidseg.checkpoint.files import read_checkpoint

TOOL = str(Path(__file__).parents[2] / "tools" / "train_net.py")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, TOOL, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, make_dataset(tmp_path / "data"))


def test_help_is_quick_and_imports_little() -> None:
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({TOOL!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'vidseg.plugins'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout
    assert "--resume" in done.stdout
    # processor time: the machine may be busy with other things
    assert end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("SOLVER.MAX_ITR", 1), "MAX_ITER"),
        (("SOLVER.MAX_ITER", "ten"), "SOLVER.MAX_ITER"),
        (("SOLVER.MAX_ITER",), "no partner"),
        (("SOLVER.MAX_ITER", -5), "set 0 or more"),
        (("SEED", "None"), "SEED"),
        (("--num-gpus", 0), "--num-gpus 0"),
        (("--num-gpus", "-2"), "--num-gpus -2"),
    ],
)
def test_config_errors_come_before_torch(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple, message: str
) -> None:
    trap = tmp_path / "trap" / "torch"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise SystemExit('torch was imported')")
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(trap.parent), path]))
    done = command("--config-file", config, *words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_absent_config_file() -> None:
    done = command("--config-file", "absent.yaml")
    assert done.returncode == 2
    assert "absent.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_options_may_follow_overrides(config: Path) -> None:
    done = command("--config-file", config, "SOLVER.MAX_ITER", 1, "--plugin", PLUGIN, "--eval-only")
    assert done.returncode == 2
    assert "no weights" in done.stderr


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint(config: Path, tmp_path: Path) -> None:
    words = ["--config-file", config, "--plugin", PLUGIN, "SOLVER.MAX_ITER", 10**6]
    process = subprocess.Popen(
        [sys.executable, "-u", TOOL, *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "iter: 4/" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert "the same command goes on from there" in rest
    assert list((tmp_path / "output" / "toy").glob("checkpoint_*.pth"))


@pytest.mark.slow
def test_two_processes_and_a_killed_one(config: Path, tmp_path: Path) -> None:
    """A rank that is killed takes the run down; its restart ends with the same weights."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    base = ["--config-file", str(config), "--plugin", PLUGIN, "OUTPUT_DIR"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = command(*base, whole, "--num-gpus", 2)
    assert done.returncode == 0, done.stderr
    trap = tmp_path / "trap.py"
    trap.write_text(
        "import os, signal, pathlib\n"
        "from vidseg.engine.trainer import Trainer\n"
        "step = Trainer._step\n"
        f"flag = pathlib.Path({str(tmp_path / 'flag')!r})\n"
        "def trap(self, samples):\n"
        "    step(self, samples)\n"
        "    if self.iteration == 4 and os.environ['RANK'] == '1' and not flag.exists():\n"
        "        flag.touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "Trainer._step = trap\n"
    )
    words = [*launcher, "--max-restarts", "1", "--standalone", TOOL, *base, str(killed)]
    done = subprocess.run(
        [*words, "--plugin", str(trap)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "flag").exists()
    first = read_checkpoint(whole / "model_final.pth")["model"]
    second = read_checkpoint(killed / "model_final.pth")["model"]
    assert all(torch.equal(value, second[name]) for name, value in first.items())
