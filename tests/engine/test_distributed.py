"""Two processes on the CPU do what one does with the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine import ddp_worker
from vidseg.collectives import agree, barrier, gather, rank, world_size
from vidseg.engine.distributed import launch


def test_alone() -> None:
    assert (rank(), world_size(), gather("x")) == (0, 1, ["x"])
    assert agree(True, torch.device("cpu"))
    barrier()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    ddp_worker.main(str(tmp_path / "one.pth"))
    assert launch(ddp_worker.__file__, [str(tmp_path / "two.pth")], 2) == 0
    one, two = torch.load(tmp_path / "one.pth"), torch.load(tmp_path / "two.pth")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_exit_code_of_a_worker_is_passed_on(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import sys; sys.exit(3)")
    assert launch(str(script), [], 2) == 3
