"""Whole runs on a small data set: trained, evaluated, stopped and continued, on two processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.support import assert_equal, losses, stop_at, weights
from tests.projects.fact_clip import model_worker
from vidseg.engine.chain import plan_stages
from vidseg.engine.distributed import launch
from vidseg.engine.setup import run_stages

SMALL = """
MODEL: {{META_ARCHITECTURE: FACT, DEVICE: cpu}}
FACT: {{block: iU, ntoken: 6, cmr: 0.2, standardize: true}}
TM: {{use: true, t: 3, p: 0.2, m: 2}}
Bi: {{hid_dim: 16, dropout: 0.1, a_nhead: 2, a_ffdim: 8, a_layers: 1, a_dim: 8, f: m2, f_layers: 2,
  f_ln: false, f_dim: 8, f_ngp: 1}}
BU: {{f_layers: 2}}
Loss: {{sw: 1.0}}
DATASETS: {{TRAIN: ['{data}'], TEST: ['{data}'], DATASET_TYPE: [action_frames],
  DATASET_TYPE_TEST: [action_frames]}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER: {{IMS_PER_BATCH: 2, ACCUMULATION_STEPS: 2, MAX_ITER: 6, WARMUP_ITERS: 0, OPTIMIZER: ADAM,
  CHECKPOINT_PERIOD: 2, LOG_PERIOD: 1}}
TEST: {{EVAL_PERIOD: 0, ACTIONS: {{NUM_PICTURES: 0}}}}
WRITERS: [jsonl]
OUTPUT_DIR: {output}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    root = tmp_path / "actions"
    for folder in ("features", "groundTruth", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 idle\n1 cut\n2 pour")
    rng = np.random.default_rng(0)
    for number, length in enumerate((20, 33, 7, 25)):
        labels = np.arange(length) // 5 % 3
        features = np.eye(3, 5)[labels] + rng.normal(scale=0.3, size=(length, 5))
        np.save(root / f"features/v{number}.npy", features.astype(np.float32))
        lines = [("idle", "cut", "pour")[label] for label in labels]
        (root / f"groundTruth/v{number}.txt").write_text("\n".join(lines))
    split = root / "splits" / "train.split1.bundle"
    split.write_text("\n".join(f"v{number}" for number in range(4)))
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.format(data=split, output=tmp_path / "out"))
    return path


def run(config: Path, *overrides: str) -> int:
    stages = plan_stages(str(config), list(overrides), ["fact_clip"])
    return run_stages(stages, plugins=["fact_clip"])


def test_a_run_ends_with_metrics(config: Path, tmp_path: Path) -> None:
    assert run(config) == 0
    (metrics,) = (tmp_path / "out" / "inference").glob("*/metrics.json")
    assert {"merged/Acc", "merged/Edit", "merged/F1@50"} <= set(json.loads(metrics.read_text()))
    found = weights(tmp_path / "out")
    assert found["standardisation.num_frames"] == 85
    assert not [name for name in found if name.startswith("criterion")]
    # 4, 7, 2 and 5 segments: 6 / ((6 - 4.5) * 3)
    assert "null weight 1.33" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.parametrize("stop", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_stopped_run_continues_to_the_bit(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    assert run(config, "OUTPUT_DIR", str(tmp_path / "whole")) == 0
    parts = ("OUTPUT_DIR", str(tmp_path / "parts"))
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        assert run(config, *parts) == 128 + signal.SIGTERM
    assert run(config, *parts) == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_videos(tmp_path: Path) -> None:
    assert launch(model_worker.__file__, [str(tmp_path)], 2) == 0
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    one = model_worker.train()
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=1e-4, msg=name)
