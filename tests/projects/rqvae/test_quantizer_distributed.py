"""Two processes keep one set of codebooks, that of the joined batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.projects.rqvae import quantizer_worker
from vidseg.engine.distributed import launch


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    assert launch(quantizer_worker.__file__, [str(tmp_path)], 2) == 0
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    for run in ("plain", "random"):
        for name, value in first[run].items():
            # With a masked share a process uses no level that its codes would show.
            if name != "used":
                assert torch.equal(value, second[run][name]), (run, name)
    one = quantizer_worker.train(revive_every=0, dropout=0.0)
    for name, value in one.items():
        if name != "used":
            torch.testing.assert_close(first["plain"][name], value, atol=1e-5, rtol=1e-5)
    assert first["random"]["revived"] > 0
    used = [run["random"]["used"].tolist() for run in (first, second)]
    del used[0][2], used[1][2]
    assert used[0] == used[1]
    assert min(used[0]) < 3
