"""Annotations of other forms become YouTube-VIS files that can be loaded and are sound."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidseg import rle
from vidseg.data.checks import Effort, check_data_set
from vidseg.data.ytvis import JsonFile
from vidseg.errors import DataError, UserError

HEIGHT, WIDTH = 12, 16


def _run(script: str, *arguments: object) -> None:
    importlib.import_module(script).main([str(argument) for argument in arguments])


def _frames(folder: Path, count: int, *, first: int = 0, digits: int = 5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(folder)) + ord(folder.name[-1]))
    for number in range(first, first + count):
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:0{digits}d}.jpg")


def _square(left: int, value: int = 1, top: int = 2) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[top : top + 4, left : left + 4] = value
    return mask


def _load(path: Path) -> tuple[dict[str, Any], list[list[np.ndarray | None]]]:
    """Gives the file and the decoded masks of each object, after it has been found sound."""
    findings = check_data_set(str(path), Effort())
    assert [item for item in findings.items if item.severity != "note"] == []
    assert JsonFile(str(path))()
    content = json.loads(path.read_text())
    masks = [
        [m and rle.decode(rle.from_text(m)) for m in annotation["segmentations"]]
        for annotation in content["annotations"]
    ]
    return content, masks


def _save_palette(path: Path, indices: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
    image.save(path)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "DAVIS"
    for name in ("bear", "dance"):
        _frames(root / "JPEGImages" / "480p" / name, 3)
        for t in range(3):
            indices = _square(t) + (_square(10, 2) if t else _square(10, 255))
            _save_palette(root / "Annotations" / "480p" / name / f"{t:05d}.png", indices)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("bear\ndance\n")
    return root


def test_davis(davis: Path) -> None:
    _run("prepare_davis", davis, "--split", "val")
    content, masks = _load(davis / "val.json")
    assert [video["file_names"][0] for video in content["videos"]] == [
        "bear/00000.jpg",
        "dance/00000.jpg",
    ]
    assert [a["video_id"] for a in content["annotations"]] == [1, 1, 2, 2]
    assert content["categories"] == [{"id": 1, "name": "object"}]
    first, second = masks[:2]
    np.testing.assert_array_equal(first[2], _square(2))
    assert second[0] is None  # void
    np.testing.assert_array_equal(second[1], _square(10))
    assert content["annotations"][0]["bboxes"][1] == [1, 2, 4, 4]
    assert content["annotations"][0]["areas"] == [16, 16, 16]


def test_davis_with_classes(davis: Path, tmp_path: Path) -> None:
    names = {"bear": {"1": "bear", "2": "person"}, "dance": {"1": "person", "2": "person"}}
    semantics = tmp_path / "semantics.json"
    semantics.write_text(json.dumps(names))
    out = tmp_path / "deep" / "a.json"
    options = ("--split", "val", "--semantics", semantics, "--out", out)
    _run("prepare_davis", davis, *options)
    content, _ = _load(out)
    assert [c["name"] for c in content["categories"]] == ["bear", "person"]
    assert [a["category_id"] for a in content["annotations"]] == [1, 2, 2, 2]
    assert content["image_root"] == "../DAVIS/JPEGImages/480p"
    _run("prepare_davis", davis, *options, "--classes", "person", "bear")
    assert [a["category_id"] for a in _load(out)[0]["annotations"]] == [2, 1, 1, 1]
    with pytest.raises(DataError, match="'bear' is none of the classes given"):
        _run("prepare_davis", davis, *options, "--classes", "person")
    with pytest.raises(UserError, match="twice"):
        _run("prepare_davis", davis, *options, "--classes", "bear", "bear")
    semantics.write_text('{"bear": {"1": "bear"}}')
    with pytest.raises(DataError, match="nothing says the class of object 2"):
        _run("prepare_davis", davis, *options)


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_davis_2016(davis: Path, mode: str) -> None:
    folder = davis / "Annotations" / "480p" / "bear"
    for t in range(3):
        Image.fromarray(_square(t, 255)).convert(mode).save(folder / f"{t:05d}.png")
    (davis / "ImageSets" / "2016").mkdir()
    line = "/JPEGImages/480p/bear/{0:05d}.jpg /Annotations/480p/bear/{0:05d}.png\n"
    text = "".join(line.format(t) for t in range(3))
    (davis / "ImageSets" / "2016" / "train.txt").write_text(text)
    _run("prepare_davis", davis, "--year", "2016")
    content, masks = _load(davis / "train.json")
    assert len(content["videos"]) == len(masks) == 1
    np.testing.assert_array_equal(masks[0][1], _square(1))


def test_davis_that_lost_its_palette(davis: Path) -> None:
    folder = davis / "Annotations" / "480p" / "bear"
    for t in range(3):
        indices = np.maximum(_square(t), _square(10, 2 if t else 255))
        Image.fromarray(indices).save(folder / f"{t:05d}.png")
    _run("prepare_davis", davis, "--split", "val")
    masks = _load(davis / "val.json")[1]
    np.testing.assert_array_equal(masks[0][0], _square(0))
    np.testing.assert_array_equal(masks[1][1], _square(10))
    coloured = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    coloured[:4, :4, 0] = coloured[6:, :4, 1] = 128
    Image.fromarray(coloured).save(folder / "00001.png")
    with pytest.raises(DataError, match=r"00001\.png has colours without a palette"):
        _run("prepare_davis", davis, "--split", "val")


def test_davis_says_what_is_missing(davis: Path) -> None:
    with pytest.raises(DataError, match=r"list of sequences .*train\.txt cannot be read"):
        _run("prepare_davis", davis)
    small = davis / "Annotations" / "480p" / "dance" / "00001.png"
    _save_palette(small, np.ones((3, 3), np.uint8))
    with pytest.raises(DataError, match=r"dance, object 1: a mask of frame 1 is \[3, 3\]"):
        _run("prepare_davis", davis, "--split", "val")
    small.unlink()
    with pytest.raises(DataError, match=r"no annotation for 1 of 3 frames, such as 00001\.png"):
        _run("prepare_davis", davis, "--split", "val")
    assert not (davis / "val.json").exists()


def _mots_line(frame: int, key: int, label: int, mask: np.ndarray) -> str:
    counts = rle.to_text(rle.encode(mask))["counts"]  # type: ignore[index]
    return f"{frame} {key} {label} {HEIGHT} {WIDTH} {counts}\n"


def _check_mots(path: Path) -> None:
    content, masks = _load(path)
    assert [c["name"] for c in content["categories"]] == ["car", "pedestrian"]
    about = [(a["category_id"], a["iscrowd"]) for a in content["annotations"]]
    assert about == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert content["videos"][0]["length"] == 3
    np.testing.assert_array_equal(masks[0][0], _square(0))
    np.testing.assert_array_equal(masks[0][2], _square(2))
    assert masks[1][0] is None
    np.testing.assert_array_equal(masks[1][1], _square(8))
    np.testing.assert_array_equal(masks[2][2], _square(12, top=8))
    assert masks[2][0] is None


def _mots_text(first: int) -> str:
    return (
        _mots_line(first, 1001, 1, _square(0))
        + _mots_line(first + 1, 2005, 2, _square(8))
        + _mots_line(first + 2, 1001, 1, _square(2))
        + _mots_line(first + 2, 10000, 10, _square(12, top=8))
    )


def test_mots_challenge(tmp_path: Path) -> None:
    _frames(tmp_path / "MOTS20-02" / "img1", 3, first=1, digits=6)
    (tmp_path / "MOTS20-02" / "gt").mkdir()
    (tmp_path / "MOTS20-02" / "gt" / "gt.txt").write_text(_mots_text(1) + "\n\n")
    _run("prepare_mots", tmp_path)
    _check_mots(tmp_path / "instances.json")


@pytest.mark.parametrize("form", ["text", "pictures"])
def test_kitti_mots(tmp_path: Path, form: str) -> None:
    _frames(tmp_path / "training" / "image_02" / "0000", 3, digits=6)
    if form == "text":
        (tmp_path / "instances_txt").mkdir()
        (tmp_path / "instances_txt" / "0000.txt").write_text(_mots_text(0))
    else:
        (tmp_path / "instances" / "0000").mkdir(parents=True)
        ids = [
            _square(0).astype(np.uint16) * 1001,
            _square(8).astype(np.uint16) * 2005,
            _square(2).astype(np.uint16) * 1001 + _square(12, top=8).astype(np.uint16) * 10000,
        ]
        for number, picture in enumerate(ids):
            Image.fromarray(picture).save(tmp_path / "instances" / "0000" / f"{number:06d}.png")
    out = tmp_path / "train.json"
    _run("prepare_mots", tmp_path, "--sequences", "0000", "--out", out)
    _check_mots(out)
    with pytest.raises(DataError, match="no annotations of 0009; found: 0000"):
        _run("prepare_mots", tmp_path, "--sequences", "0009")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1001 1 12\n", "line 1: expected frame, id, class"),
        ("0 1001 1 12 16 0\n", "line 1: expected frame, id, class"),
        (_mots_line(9, 1001, 1, _square(0)), "no picture of frame 9"),
        (_mots_line(0, 3001, 3, _square(0)), "the class 3 of 3001"),
        (2 * _mots_line(0, 1001, 1, _square(0)), "frame 0 has the object 1001 twice"),
        ("", "1 videos, but no object"),
    ],
)
def test_broken_mots(tmp_path: Path, text: str, message: str) -> None:
    _frames(tmp_path / "training" / "image_02" / "0000", 3, digits=6)
    (tmp_path / "instances_txt").mkdir()
    (tmp_path / "instances_txt" / "0000.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        _run("prepare_mots", tmp_path)


def test_a_folder_is_no_file_to_write(davis: Path) -> None:
    with pytest.raises(UserError, match=r"--out .* is a folder"):
        _run("prepare_davis", davis, "--split", "val", "--out", davis)


def test_mots_without_anything(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has neither instances_txt"):
        _run("prepare_mots", tmp_path)
