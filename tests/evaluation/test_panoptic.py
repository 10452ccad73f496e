"""VPQ and STQ against recorded figures, by hand, and with files that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.golden_utils import GOLDEN
from vidseg.errors import DataError
from vidseg.evaluation.panoptic import WINDOWS, PanopticVideo, count_stq, count_vpq, stq, vpq
from vidseg.evaluation.panoptic_files import score_panoptic

FOLDER = GOLDEN / "vps"


def write_ids(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = [ids & 255, ids >> 8 & 255, ids >> 16]
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded videos as files."""
    root = tmp_path_factory.mktemp("vps")
    arrays = np.load(FOLDER / "ids.npz")
    for name, folder in (("gt", "panomasksRGB"), ("pred", "pan_pred")):
        content = json.loads((FOLDER / f"{name}.json").read_text())
        (root / f"{name}.json").write_text(json.dumps(content))
        for video in content["annotations"]:
            for frame, ids in zip(
                video["annotations"], arrays[f"{video['video_id']}/{name}"], strict=True
            ):
                write_ids(root / folder / video["video_id"] / frame["file_name"], ids)
    return root


def test_recorded_figures(recorded: Path) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())
    scores = score_panoptic(recorded / "gt.json", recorded / "pred.json")
    for name, part in (("VPQ", "all"), ("VPQ_things", "things"), ("VPQ_stuff", "stuff")):
        assert 100 * scores.metrics[name] == pytest.approx(expected["vpq_mean"][part], abs=1e-9)
        for length in WINDOWS:
            assert 100 * scores.metrics[f"{name}{length}"] == pytest.approx(
                expected["vpq"][str(length)][part], abs=1e-9
            )
    strict = score_panoptic(recorded / "gt.json", recorded / "pred.json", strict=True)
    for found, key in ((scores, "stq_without_that_quirk"), (strict, "stq_reference")):
        for name, value in expected[key].items():
            assert found.metrics[name] == pytest.approx(value, abs=1e-9)
    assert isnan(scores.per_class["stuff_unused"]["VPQ"])
    assert scores.per_class["thing_a"]["VPQ"] > 0
    assert isnan(scores.per_video["vid2"]["VPQ8"])  # of 6 frames
    assert scores.per_video["vid2"]["VPQ"] > 0


def test_a_perfect_prediction(recorded: Path) -> None:
    content = json.loads((recorded / "gt.json").read_text())
    for video in content["annotations"]:
        for frame in video["annotations"]:
            for segment in frame["segments_info"]:
                segment["iscrowd"] = 0
    (recorded / "perfect.json").write_text(json.dumps(content))
    metrics = score_panoptic(
        recorded / "perfect.json",
        recorded / "perfect.json",
        result_masks=recorded / "panomasksRGB",
    ).metrics
    assert set(metrics.values()) == {1.0}


def video(
    tables: Any, truth: list[int], found: list[int], *, crowd: tuple[int, ...] = ()
) -> PanopticVideo:
    counts = np.array(tables)
    is_crowd = np.isin(np.arange(len(truth)), crowd)
    areas = counts.sum(2)[:, 1:]
    classes = (np.array(one, np.int64) for one in (truth, found))
    return PanopticVideo(counts, *classes, is_crowd, areas, areas > 0)


def test_half_is_not_enough_and_void_is_not_held_against() -> None:
    half = video([[[0, 0], [5, 5]]], [0], [0])
    counts = count_vpq(half, 1, 1)
    assert (counts.hits[0], counts.false[0], counts.missed[0]) == (0, 1, 1)
    better = count_vpq(video([[[90, 9], [4, 6]]], [0], [0]), 1, 1)
    assert (better.hits[0], better.iou[0]) == (1, 0.6)  # 9 of its pixels lie on void
    for on_void, false in ((11, 0), (10, 1)):
        counts = count_vpq(video([[[0, on_void], [40, 20 - on_void]]], [0], [0]), 1, 1)
        assert counts.false[0] == false


def test_crowds_neither_match_nor_miss() -> None:
    one = video([[[0, 0], [0, 10]]], [0], [0], crowd=(0,))
    counts = count_vpq(one, 1, 1)
    assert not any((counts.hits[0], counts.false[0], counts.missed[0]))
    assert np.isnan(vpq(counts)).all()
    other_class = count_vpq(video([[[0, 0], [0, 10]]], [0], [1], crowd=(0,)), 1, 2)
    assert other_class.false.tolist() == [0, 1]


def test_a_tube_that_changes_its_id_fails_in_long_windows() -> None:
    swapped = video([[[0, 0, 0], [0, 10, 0]]] * 2 + [[[0, 0, 0], [0, 0, 10]]] * 2, [0], [0, 0])
    qualities = [float(vpq(count_vpq(swapped, length, 1))[0]) for length in (1, 2, 4)]
    assert qualities[0] == 1
    assert qualities[1] == pytest.approx(
        2 / 3.5
    )  # the middle one of three windows: 2 false, 1 missed
    assert qualities[2] == 0
    assert stq(count_stq(swapped, [True])) == pytest.approx(
        {"STQ": 0.5**0.5, "AQ": 0.5, "IoU": 1.0}
    )
    assert count_vpq(swapped, 6, 1).missed[0] == 0  # no such window


def test_stq_of_void_and_without_things() -> None:
    counts = count_stq(video([[[0, 0], [5, 5]]], [0], [0]), [False])
    assert counts.num_tubes == 0
    assert stq(counts)["IoU"] == pytest.approx((0.5 + 0) / 2)  # void is a class with IoU 0
    assert isnan(stq(counts)["STQ"])


def _edit(change: Callable[[Any], None], name: str = "pred.json") -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        content = json.loads((root / name).read_text())
        change(content)
        (root / name).write_text(json.dumps(content))

    return apply


def _first(content: Any) -> Any:
    return content["annotations"][0]["annotations"][0]


FRAME = Path("pan_pred/vid0/00000000.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit(lambda content: content["annotations"].pop(0)), "has no video vid0"),
        (_edit(lambda c: c["annotations"][0]["annotations"].pop(0)), "has no frame 00000000"),
        (_edit(lambda c: _first(c)["segments_info"].pop(0)), "that the json file does not name"),
        (_edit(lambda c: _first(c).pop("segments_info")), "lacks the key 'segments_info'"),
        (_edit(lambda c: _first(c)["segments_info"][0].update(category_id=99)), "category_id 99"),
        (_edit(lambda c: _first(c)["segments_info"][0].update(category_id=10)), "needs a new id"),
        (_edit(lambda c: c.update(annotations={})), "has no list 'annotations'"),
        (_edit(lambda c: c["annotations"].__setitem__(0, 7)), "is not a video"),
        (_edit(lambda c: _first(c)["segments_info"][0].update(id=0)), "id 0; ids begin with 1"),
        (_edit(lambda c: c["annotations"].append(c["annotations"][0])), "is video vid0 once more"),
        (_edit(lambda c: c.pop("categories"), "gt.json"), "needs a list 'categories'"),
        (_edit(lambda c: c["categories"][0].pop("isthing"), "gt.json"), "'isthing' of each"),
        (_edit(lambda c: _first(c)["segments_info"][0].pop("area"), "gt.json"), "key 'area'"),
        (lambda root: (root / FRAME).unlink(), "00000000.png does not exist"),
        (lambda root: (root / FRAME).write_bytes(b"no"), "cannot be read as a picture"),
        (lambda root: Image.new("L", (56, 40)).save(root / FRAME), "expected ids as RGB"),
        (lambda root: Image.new("RGB", (5, 4)).save(root / FRAME), "is 5x4 pixels, its annotation"),
    ],
)
def test_bad_files_are_named(
    damage: Callable[[Path], None], message: str, recorded: Path, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(recorded, root)
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        score_panoptic(root / "gt.json", root / "pred.json")
    assert str(root) in str(caught.value)
