"""mIoU and VC against recorded figures and by hand."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.golden_utils import GOLDEN
from vidseg.errors import DataError
from vidseg.evaluation.semantic import (
    confusion_matrix,
    consistency,
    score_semantic,
    semantic_metrics,
)

FOLDER = GOLDEN / "vss"


def write(root: Path, name: str, video: str, maps: np.ndarray) -> None:
    folder = root / name / video
    folder.mkdir(parents=True)
    for frame, labels in enumerate(maps):
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{frame:05}.png")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vss")
    arrays = np.load(FOLDER / "maps.npz")
    for key in arrays:
        video, _, name = key.partition("/")
        write(root, name, video, arrays[key])
    return root


def test_recorded_figures(recorded: Path) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())
    scores = score_semantic(recorded / "gt", recorded / "pred")
    windows = expected["vc_per_window_length"]
    wanted = expected["miou_reference"] | {name: windows[name] for name in ("VC8", "VC16")}
    assert scores.metrics == pytest.approx(wanted, abs=1e-9)
    strict = score_semantic(recorded / "gt", recorded / "pred", strict=True)
    wanted = expected["miou_reference"] | expected["vc_reference"]
    assert strict.metrics == pytest.approx(wanted, abs=1e-9)
    assert scores.iou.shape == (124,)
    assert np.nanmean(scores.iou) == pytest.approx(scores.metrics["mIoU"])
    assert isnan(scores.per_video["vid3"]["VC8"])  # of 8 frames
    assert scores.per_video["vid2"]["VC8"] > 0
    assert isnan(scores.per_video["vid2"]["VC16"])


def test_confusion_by_hand() -> None:
    truth, found = np.array([0, 0, 0, 1, -1, 1]), np.array([0, 0, 1, 1, 0, 2])
    confusion = confusion_matrix(truth, found, 3)
    assert confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert semantic_metrics(confusion) == pytest.approx(
        {
            "mIoU": (2 / 3 + 1 / 3) / 2,  # class 2 is not annotated
            "fwIoU": (3 * 2 / 3 + 2 * 1 / 3) / 5,
            "Acc": 3 / 5,
            "Acc_class": (2 / 3 + 1 / 2) / 2,
        }
    )
    assert all(map(isnan, semantic_metrics(confusion * 0).values()))


def test_consistency_by_hand() -> None:
    truth = np.zeros((4, 1, 4), int)
    truth[1:, 0, 3] = 1  # this pixel changes after the first frame
    found = np.full((4, 1, 4), 7)  # wrong, but steady
    found[2, 0, 0] = 3
    assert consistency(truth, found, 2).tolist() == [1, 3 / 4]  # the last window is not visited
    assert consistency(truth, found, 3).tolist() == [2 / 3]
    assert consistency(truth, found, 4).shape == (0,)
    restless = np.arange(4)[:, None, None] + np.zeros((4, 1, 4), int)
    assert np.isnan(consistency(restless, found, 2)).all()


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        ("gt", 4, "gt, video a: label 4 is none of 3 classes, which are 1 to 3"),
        ("pred", 3, "pred, video a: label 3 is none of 3 classes, which are 0 to 2"),
        ("pred", 255, "label 255 is none of 3 classes"),
    ],
)
def test_labels_that_are_no_class(name: str, level: int, message: str, tmp_path: Path) -> None:
    maps = {"gt": np.full((2, 2, 2), 3), "pred": np.full((2, 2, 2), 2)}
    maps[name][1] = level
    for key, one in maps.items():
        write(tmp_path, key, "a", one)
    with pytest.raises(DataError, match=message):
        score_semantic(tmp_path / "gt", tmp_path / "pred", num_classes=3)


def test_void_is_not_scored(tmp_path: Path) -> None:
    write(tmp_path, "gt", "a", np.array([[[0, 255, 1]]]))
    write(tmp_path, "pred", "a", np.array([[[1, 1, 0]]]))
    scores = score_semantic(tmp_path / "gt", tmp_path / "pred", num_classes=2)
    assert scores.metrics["mIoU"] == scores.metrics["Acc"] == 1
