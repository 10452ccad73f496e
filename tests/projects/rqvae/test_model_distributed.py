"""Two processes train one model, that of the joined batch: scale, codebooks and statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.projects.rqvae import model_worker
from vidseg.engine.distributed import launch


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_documents(tmp_path: Path) -> None:
    assert launch(model_worker.__file__, [str(tmp_path)], 2) == 0
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    one = model_worker.train()
    assert one["rvq.initialized"]
    assert one["fitting.num_documents"] == 4
    assert one["standardisation.num_frames"] == 4 * model_worker.LENGTH
    for name, value in one.items():
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=1e-4, msg=name)
