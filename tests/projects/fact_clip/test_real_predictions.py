"""Recorded predictions on real videos have the metrics that are known for them."""

from __future__ import annotations

import numpy as np
import pytest

from vidseg.data import dataset_root
from vidseg.projects.fact_clip.metrics import F1_NAMES, count_video, pool, summary

DATASETS = dataset_root()  # before the tests get an environment of their own
NUM_CLASSES = 18

# data set, predictions, fold: Acc, Edit, F1@10, F1@25, F1@50
KNOWN = {
    ("salads50_scores", "svm_mid", 1): (63.0, 21.6, 29.6, 22.8, 15.6),
    ("salads50_scores", "svm_mid", 2): (53.5, 20.8, 25.9, 20.7, 13.1),
    ("salads50_scores", "svm_mid", 3): (48.5, 21.9, 25.8, 20.0, 13.8),
    ("salads50_scores", "svm_mid", 4): (53.1, 20.2, 27.1, 20.5, 13.0),
    ("salads50_scores", "edtcn_mid", 1): (76.8, 69.0, 75.8, 73.2, 64.4),
    ("salads50_scores", "edtcn_mid", 2): (66.8, 61.6, 72.3, 66.5, 50.5),
    ("salads50_scores", "edtcn_mid", 3): (62.4, 60.8, 66.8, 61.8, 52.4),
    ("salads50_scores", "edtcn_mid", 4): (60.9, 50.5, 56.4, 52.9, 42.3),
    ("gtea_scores", "svm", 1): (50.0, 30.7, 37.6, 30.2, 21.6),
    ("gtea_scores", "svm", 2): (58.7, 36.8, 40.5, 35.8, 24.7),
    ("gtea_scores", "edtcn", 1): (63.9, 66.6, 70.7, 66.0, 50.5),
    ("gtea_scores", "edtcn", 2): (62.8, 66.2, 67.5, 60.5, 47.8),
}


@pytest.mark.dataset
@pytest.mark.parametrize(("name", "model", "fold"), KNOWN)
def test_known_metrics(name: str, model: str, fold: int) -> None:
    folder = DATASETS / name
    if not (folder / "predictions" / model).is_dir():
        pytest.skip(f"no predictions in {folder}; set VIDSEG_DATASETS to the folder that has them")
    videos = (folder / "splits" / f"test.split{fold}.bundle").read_text().split()
    counts = []
    for video in videos:
        with np.load(folder / "predictions" / model / f"{video}.npz") as file:
            counts.append(count_video(file["pred"], file["gt"], NUM_CLASSES, background=[0]))
    found = summary(pool(counts, NUM_CLASSES), background=[0])
    values = tuple(round(found[key], 1) for key in ("Acc", "Edit", *F1_NAMES))
    assert values == KNOWN[name, model, fold]
