"""One video through the predictor, and the files that show it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.projects.fact_clip.prediction_ground import CLASSES, make_prediction, segments
from tests.projects.fact_clip.small_model import NUM_CLASSES, WIDTH, build
from vidseg import SequencePredictor
from vidseg.errors import DataError
from vidseg.projects.fact_clip import ActionFrameMapper
from vidseg.projects.fact_clip.view import write_view


def test_files_and_words(tmp_path: Path) -> None:
    labels = segments((0, 5), (2, 9), (1, 1), (2, 5))
    sample = {"video_id": "soup", "frame_indices": range(20), "frame_rate": 10.0}
    said = write_view(tmp_path / "new" / "soup", sample, make_prediction(labels), CLASSES, [0])
    assert said == "20 frames; merged: 4 segments of background, pour milk, take bowl"
    with Image.open(tmp_path / "new" / "soup" / "timeline.png") as image:
        assert image.width > 500
    with (tmp_path / "new" / "soup" / "segments.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == "merged"]
    assert [(row["class"], row["first_frame"], row["last_frame"]) for row in rows] == [
        ("background", "0", "4"),
        ("pour milk", "5", "13"),
        ("take bowl", "14", "14"),
        ("pour milk", "15", "19"),
    ]
    assert [float(rows[1][key]) for key in ("start_seconds", "end_seconds")] == [0.5, 1.4]


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    sample = {"video_id": "soup", "frame_indices": range(4)}
    said = write_view(tmp_path, sample, make_prediction(segments((1, 4))), [])
    assert said.startswith("4 frames; merged: 1 segment of ")
    assert "1" in said.rpartition("of ")[2]


def test_one_frame(tmp_path: Path) -> None:
    sample = {"video_id": "soup", "frame_indices": range(1)}
    said = write_view(tmp_path, sample, make_prediction(segments((1, 1))), CLASSES)
    assert said == "1 frame; merged: 1 segment of take bowl"


def test_predictor_samples_frames_as_the_config_says(tmp_path: Path) -> None:
    model = build().eval()
    features = np.random.default_rng(0).normal(size=(41, WIDTH)).astype(np.float32)
    np.save(tmp_path / "soup.npy", features)
    every = SequencePredictor(model, ActionFrameMapper())
    third = SequencePredictor(model, ActionFrameMapper(sampling_rate=3))
    sample = third.read(tmp_path / "soup.npy")
    prediction = third.predict_sample(sample)
    assert prediction.probabilities.shape == (14, NUM_CLASSES)
    assert prediction.labels.equal(every.predict(features[::3]).labels)
    said = third.write(tmp_path / "shown", sample, prediction)
    assert said.startswith("41 frames; merged: ")
    assert sorted(path.name for path in (tmp_path / "shown").iterdir()) == [
        "segments.csv",
        "timeline.png",
    ]
    np.save(tmp_path / "turned.npy", features.T)
    with pytest.raises(
        DataError, match=r"turned.npy has 41 features per frame, the model takes 12"
    ):
        every.predict(tmp_path / "turned.npy")
