"""What a model has to beat on the generated clips, and what single blobs may give away there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidseg.config import load_config
from vidseg.data import DatasetCatalog
from vidseg.engine.evaluate import flatten
from vidseg.projects.persistence.evaluator import ObjectPersistenceEvaluator
from vidseg.projects.persistence.mapper import ObjectTokenMapper
from vidseg.projects.persistence.prediction import TokenPrediction

NUM_CLIPS = 300


def baselines(variant: str, folder: Path) -> dict[str, float]:
    """Scores test clips of a variant, decided as their labels say."""
    cfg = load_config(None, ["INPUT.PERSISTENCE.CACHE", False], ["persistence"])
    mapper = ObjectTokenMapper(**ObjectTokenMapper.from_config(cfg, is_train=False))
    evaluator = ObjectPersistenceEvaluator(folder, num_resamples=0)
    for record in DatasetCatalog.get(f"persistence_{variant}_test")[:NUM_CLIPS]:
        sample = mapper(record, np.random.default_rng(0))
        assert isinstance(sample, dict)
        num = len(sample["labels"])
        prediction = TokenPrediction(
            detections=sample["detections"],
            logits=sample["labels"] - 0.5,
            attention={},
            matrix=torch.zeros(num, num),
            durations=None,
            queries=None,
            tracks=sample["tracks"],
            kept=torch.arange(num),
        )
        evaluator.process([sample], [prediction])
    return flatten(evaluator.evaluate())


@pytest.mark.slow
def test_only_time_tells_where_all_are_white(tmp_path: Path) -> None:
    found = baselines("same", tmp_path)
    assert found["baselines/leak_probe"] <= 55
    assert found["baselines/tracker"] == pytest.approx(94, abs=1.5)
    assert found["baselines/colour_tracker"] == pytest.approx(50, abs=0.5)
    assert found["detection/recall"] >= 94
    assert found["detection/false_positives_per_frame"] <= 0.01


@pytest.mark.slow
def test_a_single_blob_tells_where_colour_is_the_class(tmp_path: Path) -> None:
    found = baselines("coloured", tmp_path)
    assert found["baselines/leak_probe"] >= 99
    assert found["baselines/colour_tracker"] >= 98
