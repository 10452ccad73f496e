"""Folders of segments give the recorded figures of J&F and of object discovery."""

from __future__ import annotations

import json
from functools import partial
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.golden_utils import GOLDEN
from vidseg.errors import DataError
from vidseg.evaluation.discovery import label_map
from vidseg.evaluation.segment_files import score_discovery, score_region_boundary


def write(folder: Path, maps: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for frame, labels in enumerate(maps):
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{frame:05}.png")


def test_recorded_figures_of_davis(tmp_path: Path) -> None:
    arrays = np.load(GOLDEN / "davis_j_and_f" / "masks.npz")
    for key in arrays:
        video, _, name = key.partition("/")
        write(tmp_path / name / video, arrays[key])
    expected = json.loads((GOLDEN / "davis_j_and_f" / "expected.json").read_text())
    metrics, per_video = score_region_boundary(tmp_path / "gt", tmp_path / "pred")
    assert list(metrics) == ["J&F", "J", "J-Recall", "J-Decay", "F", "F-Recall", "F-Decay"]
    for found, key in ((metrics, "COMBINED_SEQ"), (per_video["seq1"], "seq1")):
        for name, value in found.items():
            recorded = f"{name}-Mean" if name in ("J", "F") else name
            assert value == pytest.approx(expected[key][recorded], abs=1e-12)


def test_semi_supervised_task_of_davis(tmp_path: Path) -> None:
    labels = np.zeros((4, 12, 12))
    labels[:, 2:8, 2:8], labels[:, 9:, 9:] = 3, 255
    for name, number in (("gt", 3), ("pred", 3), ("other", 4)):
        write(tmp_path / name / "a", np.where(labels == 3, number, labels * (name == "gt")))
    score = partial(score_region_boundary, task="semi-supervised")
    assert score(tmp_path / "gt", tmp_path / "pred")[0]["J&F"] == 1
    assert score_region_boundary(tmp_path / "gt", tmp_path / "other")[0]["J&F"] == 1
    with pytest.raises(DataError, match=r"other, video a: there is no object 4, .* unsupervised"):
        score(tmp_path / "gt", tmp_path / "other")
    for frame in (2, 3):
        (tmp_path / "gt" / "a" / f"{frame:05}.png").unlink()
    with pytest.raises(DataError, match="has an object between the first and the last frame"):
        score(tmp_path / "gt", tmp_path / "pred")


@pytest.mark.parametrize("case", ["no_overlap", "overlap"])
def test_recorded_figures_of_discovery(case: str, tmp_path: Path) -> None:
    arrays = np.load(GOLDEN / "discovery" / f"{case}.npz")
    for key in arrays:
        video, _, name = key.partition("/")
        labels = label_map(arrays[key]) if name == "masks" else arrays[key]
        write(tmp_path / name / video, np.where(labels < 0, 255, labels))
    expected = json.loads((GOLDEN / "discovery" / "expected.json").read_text())
    folders = tmp_path / "masks", tmp_path / "slots"
    metrics, per_video = score_discovery(*folders)
    for level, recorded in (("video", "video"), ("image", "frame")):
        wanted = expected[case][recorded]
        for name, key in (
            ("FG-ARI", "fg_ari_skip_empty"),
            ("FG-ARI_empty_is_1", "fg_ari_empty_is_1"),
            ("mBO", "mbo"),
            ("mIoU", "miou_hungarian"),
        ):
            assert metrics[f"{level}/{name}"] == pytest.approx(wanted[key], abs=1e-12)
    assert isnan(per_video["v4"]["video/FG-ARI"])  # without an object
    if case == "no_overlap":
        wanted = expected["solv_protocol_no_overlap"]
        merged, _ = score_discovery(*folders, merged=True)
        assert merged["mIoU"] == pytest.approx(wanted["miou"], abs=1e-7)
        assert merged["FG-ARI"] == pytest.approx(wanted["fg_ari"], abs=1e-7)


def test_nothing_to_score_against(tmp_path: Path) -> None:
    for name in ("gt", "pred"):
        write(tmp_path / name / "a", np.zeros((2, 3, 4)))
    for score in (score_region_boundary, score_discovery):
        with pytest.raises(DataError, match=r"no video of .*gt has an object"):
            score(tmp_path / "gt", tmp_path / "pred")
