"""Folders of segments give the recorded figures of J&F and of object discovery."""

from __future__ import annotations

import json
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
    assert list(metrics) == ["J&F", "J", "F"]
    for found, key in ((metrics, "COMBINED_SEQ"), (per_video["seq1"], "seq1")):
        wanted = {"J&F": "J&F", "J": "J-Mean", "F": "F-Mean"}
        for name, recorded in wanted.items():
            assert found[name] == pytest.approx(expected[key][recorded], abs=1e-12)


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
