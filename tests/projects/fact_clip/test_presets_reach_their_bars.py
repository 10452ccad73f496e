"""The presets, trained whole: bars on videos that chose nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidseg.data import dataset_root
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages

PRESETS = Path(__file__).resolve().parents[3] / "projects" / "fact_clip"


def metrics_of(preset: Path, output: Path, seed: int = 0) -> dict[str, float]:
    overrides = ["OUTPUT_DIR", str(output), "SEED", str(seed), "MODEL.DEVICE", "cpu"]
    overrides += ["TEST.ACTIONS.NUM_PICTURES", "0"]
    stages = plan_stages(str(preset), overrides, ["fact_clip"])
    assert run_stages(stages, plugins=["fact_clip"]) == 0
    (file,) = (output / "inference").glob("*/metrics.json")
    found: dict[str, float] = json.loads(file.read_text())
    return found


@pytest.mark.slow
def test_generated_videos(tmp_path: Path) -> None:
    found = metrics_of(PRESETS / "synthetic.yaml", tmp_path / "run")
    assert found["merged/Acc"] >= 90
    assert found["merged/Edit"] >= 90
    assert found["merged/F1@50"] >= 85


@pytest.mark.slow
def test_unseen_actions_of_generated_videos(tmp_path: Path) -> None:
    found = metrics_of(PRESETS / "zero_shot.yaml", tmp_path / "run")
    assert found["zero_shot/unseen_only"] >= 60
    assert found["zero_shot/H"] >= 50
    assert found["zero_shot/H"] > found["zero_shot/H_gamma0"]
    assert found["zero_shot/unseen_only_untrained"] < 50


@pytest.mark.slow
@pytest.mark.dataset
def test_salads(tmp_path: Path) -> None:
    require_salads()
    preset = PRESETS / "real" / "salads50.yaml"
    found = [metrics_of(preset, tmp_path / str(seed), seed) for seed in range(3)]
    bars = {"merged/F1@10": 78, "merged/F1@25": 73, "merged/F1@50": 62, "merged/Edit": 70}
    means = {name: sum(one[name] for one in found) / 3 for name in bars}
    assert all(means[name] >= bar for name, bar in bars.items()), means


@pytest.mark.slow
@pytest.mark.dataset
def test_unseen_actions_of_salads(tmp_path: Path) -> None:
    require_salads()
    preset = PRESETS / "real" / "salads50_zero_shot.yaml"
    found = [metrics_of(preset, tmp_path / str(seed), seed) for seed in range(3)]
    assert sum(one["zero_shot/H"] for one in found) / 3 >= 30


def require_salads() -> None:
    if not (dataset_root() / "salads50_scores").is_dir():
        pytest.skip("salads50_scores is not below $VIDSEG_DATASETS")
