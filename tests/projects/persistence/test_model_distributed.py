"""Two processes train one model, whatever their batches have to say about its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.projects.persistence import persistence_worker
from tests.projects.persistence.token_samples import FULL, build
from vidseg.engine.distributed import launch


@pytest.mark.slow
def test_processes_with_unlike_batches_stay_equal(tmp_path: Path) -> None:
    assert launch(persistence_worker.__file__, [str(tmp_path)], 2) == 0
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    start = build(**FULL).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert not torch.equal(value, start[name]), name
