"""Two processes compute what one computes, and a killed one changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.faults import chain

RANKS = Path(__file__).with_name("ranks.py")
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.mark.slow
@pytest.mark.parametrize("stage", chain.STAGES)
def test_gradients_of_two_ranks_are_those_of_the_doubled_batch(tmp_path: Path, stage: str) -> None:
    data = chain.make_data(tmp_path)
    found = []
    for name, launcher in (("one", ()), ("two", LAUNCHER)):
        done = chain.run([str(RANKS), stage, str(data), str(tmp_path / name)], *launcher)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(tmp_path / name))
    one, two = found
    assert one.keys() == two.keys()
    assert len(one) > 20
    assert max(float(value.abs().max()) for value in one.values()) > 1e-2
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5, msg=name)


TRAP = """
import os, pathlib, signal
from vidseg.engine.trainer import Trainer
step = Trainer._step
def trap(self, samples):
    step(self, samples)
    flag = pathlib.Path({flag!r} + os.environ["RANK"])
    if self.iteration == {iteration} and os.environ["RANK"] == {rank!r} and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._step = trap
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_killed_rank_starts_again(tmp_path: Path, rank: str) -> None:
    """The launcher restarts both ranks, which go on from the last checkpoint by themselves."""
    data = chain.make_data(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = chain.run(chain.command(data, whole, stage="segmenter"), *LAUNCHER)
    assert done.returncode == 0, done.stderr
    trap, flag = tmp_path / "trap.py", tmp_path / "flag"
    trap.write_text(TRAP.format(flag=str(flag), iteration=chain.MAX_ITER // 2, rank=rank))
    words = chain.command(data, killed, "--plugin", trap, stage="segmenter")
    done = chain.run(words, *LAUNCHER, "--max-restarts", "2")
    assert done.returncode == 0, done.stderr
    assert flag.with_name(f"flag{rank}").exists()
    assert "resuming from" in done.stdout
    assert "lost another process of the run" in done.stderr
    assert chain.losses(killed) == chain.losses(whole)
    chain.assert_same_weights(killed, whole)
