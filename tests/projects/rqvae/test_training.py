"""Whole runs on a small data set: trained, evaluated, stopped and continued."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.engine.support import assert_equal, losses, stop_at, weights
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages

PRESETS = Path(__file__).resolve().parents[3] / "projects" / "rqvae"

SMALL = """
_BASE_: {base}
MODEL:
  DEVICE: cpu
  RQVAE:
    INPUT_DIM: 6
    LATENT_DIM: 16
    NHEAD: 2
    NUM_ENCODER_LAYERS: 1
    NUM_DECODER_LAYERS: 2
    MAX_SEQ_LEN: 100
    CODEBOOK_SIZE: 8
    NUM_CODEBOOKS: 3
    REVIVE_EVERY: 2
    QUANTIZER_DROPOUT: 0.5
DATASETS: {{TRAIN: ['{data}'], TEST: ['{data}']}}
INPUT: {{SEQUENCE: {{NUM_FRAMES: 60}}}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 8, WARMUP_ITERS: 2, CHECKPOINT_PERIOD: 3, LOG_PERIOD: 2}}
WRITERS: [jsonl]
OUTPUT_DIR: {output}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    rng = np.random.default_rng(0)
    documents = []
    for number, length in enumerate((70, 90, 33, 64)):
        features = rng.standard_normal((length, 6)).cumsum(0).astype(np.float32)
        np.save(folder / f"{number}.npy", features)
        documents.append({"id": f"d{number}", "path": f"{number}.npy", "topic": number % 2})
    index = {"topics": ["a", "b"], "frame_rate": 50, "documents": documents}
    (folder / "index.json").write_text(json.dumps(index))
    path = tmp_path / "small.yaml"
    base = PRESETS / "rqvae_sliding_window.yaml"
    path.write_text(SMALL.format(base=base, data=folder, output=tmp_path / "out"))
    return path


def run(config: Path, *overrides: str) -> int:
    return run_stages(plan_stages(str(config), list(overrides), ["rqvae"]), plugins=["rqvae"])


def test_a_run_ends_with_metrics(config: Path, tmp_path: Path) -> None:
    assert run(config) == 0
    (metrics,) = (tmp_path / "out" / "inference").glob("*/metrics.json")
    values = json.loads(metrics.read_text())
    assert values["codes/num_documents"] == 4
    assert values["reconstruction/SNR"] == pytest.approx(values["reconstruction/SNR_levels_3"])
    found = weights(tmp_path / "out")
    assert found["rvq.initialized"]
    assert found["standardisation.num_frames"] == 257
    assert found["fitting.num_documents"] == 4


@pytest.mark.slow
def test_more_levels_are_never_worse(config: Path, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", "150", "SOLVER.BASE_LR", "0.01", "MODEL.RQVAE.DECAY", "0.9")
    assert run(config, *words, "SOLVER.CHECKPOINT_PERIOD", "150", "SOLVER.LOG_PERIOD", "50") == 0
    (metrics,) = (tmp_path / "out" / "inference").glob("*/metrics.json")
    values = json.loads(metrics.read_text())
    by_level = [values[f"reconstruction/SNR_levels_{level}"] for level in (1, 2, 3)]
    assert by_level == sorted(by_level)
    assert by_level[0] > 0


@pytest.mark.parametrize("stop", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_stopped_run_continues_to_the_bit(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    extra = ("TEST.EVAL_PERIOD", "4")
    assert run(config, "OUTPUT_DIR", str(tmp_path / "whole"), *extra) == 0
    parts = ("OUTPUT_DIR", str(tmp_path / "parts"), *extra)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        assert run(config, *parts) == 128 + signal.SIGTERM
    assert run(config, *parts) == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_global_and_sketch_run(config: Path, tmp_path: Path) -> None:
    off = ("POSITION_BIAS", "WINDOW_PROJECTION", "LOCAL_MEMORY", "OVERLAP_ADD")
    plain = [word for name in off for word in (f"MODEL.RQVAE.{name}", "False")]
    whole = ("MODEL.RQVAE.POOLING_TYPE", "global", "OUTPUT_DIR", str(tmp_path / "global"))
    assert run(config, *plain, *whole) == 0
    sketch = ("MODEL.RQVAE.CODE_DIM", "0", "MODEL.RQVAE.KMEANS_INIT", "False")
    assert run(config, *plain, *sketch, "OUTPUT_DIR", str(tmp_path / "sketch")) == 0
    assert weights(tmp_path / "sketch")["rvq.codebooks"].shape == (3, 8, 16)
