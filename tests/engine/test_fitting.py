"""What a model fits beside its gradients: when it is asked to, on what, and after a resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engine.support import assert_equal, run, stop_at, weights
from vidseg.checkpoint.files import read_checkpoint
from vidseg.data import build_pass_loader
from vidseg.engine.hooks import CheckpointHook
from vidseg.engine.run_dir import RunDirectory

pytestmark = pytest.mark.usefixtures("fresh_plugins")

FITTED = ("MODEL.META_ARCHITECTURE", "FittedToy")


def test_called_before_every_step_and_after_the_last(config: Path, tmp_path: Path) -> None:
    assert run(config, *FITTED, "OUTPUT_DIR", tmp_path / "out") == 0
    found = weights(tmp_path / "out")
    assert found["calls"].tolist() == [1.0] * 9
    files = sorted((tmp_path / "data" / "JPEGImages").rglob("*.png"))
    brightness = np.mean([np.asarray(Image.open(file)).mean() for file in files])
    torch.testing.assert_close(
        found["brightness"], torch.full((3,), float(brightness)), rtol=0.02, atol=0
    )
    assert len(set(found["drawn"].tolist())) == 3


@pytest.mark.parametrize(
    "stop", [pytest.param(3, marks=pytest.mark.slow), 4, pytest.param(5, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("killed", [False, True])
def test_resumed_run_does_not_fit_twice(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, killed: bool
) -> None:
    assert run(config, *FITTED, "OUTPUT_DIR", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(CheckpointHook, "after_train", lambda self, trainer: None)
        stop_at(patch, stop)
        run(config, *FITTED, "OUTPUT_DIR", tmp_path / "parts")
    assert run(config, *FITTED, "OUTPUT_DIR", tmp_path / "parts") == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_averages_start_anew_where_something_was_fitted(config: Path, tmp_path: Path) -> None:
    ema = ("SOLVER.EMA.ENABLED", "True", "SOLVER.EMA.DECAY", 0.999)
    assert run(config, *FITTED, *ema, "OUTPUT_DIR", tmp_path / "out") == 0
    last = RunDirectory(tmp_path / "out").checkpointer.load_newest()
    assert last is not None
    average = last[1]["hooks"]["ema"]
    assert_equal(average, {name: last[1]["model"][name] for name in average})
    earlier = read_checkpoint(tmp_path / "out" / "checkpoint_0000003.pth")
    assert not torch.equal(earlier["hooks"]["ema"]["head.weight"], earlier["model"]["head.weight"])


def test_a_pass_gives_every_record_to_one_rank(config: Path) -> None:
    from vidseg.config import load_config

    cfg = load_config(str(config), [])
    shares = [
        [sample["video_id"] for batch in loader for sample in batch]
        for loader in (build_pass_loader(cfg, rank=rank, world_size=3) for rank in range(3))
    ]
    assert sorted(shares, key=len, reverse=True) == [[1, 4], [2], [3]]


def test_a_pass_joins_the_data_sets(config: Path) -> None:
    from vidseg.config import load_config

    data = str(config.parent / "data" / "instances.json")
    cfg = load_config(str(config), ["DATASETS.TRAIN", f"('{data}', '{data}')"])
    loader = build_pass_loader(cfg, rank=0, world_size=1)
    found = [(sample["video_id"], len(sample["frames"])) for batch in loader for sample in batch]
    assert found == [(number, 3) for _ in range(2) for number in (1, 2, 3, 4)]
