"""Exports of annotation tools become YouTube-VIS files that can be loaded and are sound."""

from __future__ import annotations

import base64
import importlib
import io
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

HEIGHT, WIDTH = 24, 32


def _run(script: str, *arguments: object) -> None:
    importlib.import_module(script).main([str(argument) for argument in arguments])


def _frames(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(folder.name))
    for number in range(count):
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg")


def _square(left: int, top: int = 2, side: int = 8) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def _load(path: Path) -> tuple[dict[str, Any], list[list[Any]]]:
    findings = check_data_set(str(path), Effort())
    assert [item for item in findings.items if item.severity != "note"] == []
    assert JsonFile(str(path))()
    content = json.loads(path.read_text())
    return content, [
        [m and rle.decode(rle.from_text(m)) for m in annotation["segmentations"]]
        for annotation in content["annotations"]
    ]


def _corners(left: int, top: int = 2, side: int = 8) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def _shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def _label(folder: Path, frame: int, *shapes: dict[str, Any], **more: Any) -> Path:
    path = folder / f"{frame:03d}.json"
    content = {"imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes, **more}
    path.write_text(json.dumps(content))
    return path


def _png(mask: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_labelme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walk, run = tmp_path / "walk", tmp_path / "runner"
    for folder in (walk, run):
        _frames(folder, 3)
    _label(walk, 0, _shape("dog", _corners(2)), _shape("cat", _corners(12), group_id=1))
    _label(
        walk,
        2,
        _shape("dog", _corners(4)),
        _shape("cat", [[22, 10], [14, 2]], "rectangle", group_id=1),
        _shape("cat", _corners(23), group_id=2),
        _shape("dog", [[3, 3]], "point"),
    )
    part = np.ones((4, 6), dtype=bool)
    part[0] = False
    _label(run, 1, _shape("dog", [[5, 6], [10, 9]], "mask", mask=_png(part)))
    _label(run, 2, _shape("dog", [[16, 12], [16, 17]], "circle"))
    _run("prepare_labelme", tmp_path)
    content, masks = _load(tmp_path / "instances.json")
    assert capsys.readouterr().out.endswith("left out, since they are no area: 1 points\n")
    assert [c["name"] for c in content["categories"]] == ["cat", "dog"]
    about = [(a["video_id"], a["category_id"]) for a in content["annotations"]]
    assert about == [(1, 2), (2, 2), (2, 1), (2, 1)]
    assert content["videos"][1]["file_names"][0] == "walk/000.jpg"
    runner, dog, cat, _ = masks
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[7:10, 5:11] = True
    np.testing.assert_array_equal(runner[1], expected)
    assert abs(runner[2].sum() - np.pi * 25) < 12
    np.testing.assert_array_equal(dog[0], _square(2))
    assert dog[1] is None
    np.testing.assert_array_equal(dog[2], _square(4))
    np.testing.assert_array_equal(cat[2], _square(14))


def test_labelme_of_one_video(tmp_path: Path) -> None:
    _frames(tmp_path, 2)
    path = _label(tmp_path, 1, _shape("dog", _corners(2)), _shape("dog", _corners(20)))
    with pytest.raises(DataError, match="2 shapes have the label 'dog' and no group id"):
        _run("prepare_labelme", tmp_path)
    _run("prepare_labelme", tmp_path, "--join", "--out", tmp_path / "a.json")
    _, masks = _load(tmp_path / "a.json")
    np.testing.assert_array_equal(masks[0][1], _square(2) | _square(20))
    path.write_text("[]")
    with pytest.raises(DataError, match="no list of shapes"):
        _run("prepare_labelme", tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (_shape("dog", [[1, 1], [2, 2]]), "shape 0 cannot be read: it is a polygon of 2 points"),
        (_shape("dog", [[1, 1], [2, float("nan")], [4, 4]]), "no finite numbers"),
        (_shape("dog", _corners(2), group_id="a"), "group id is 'a'"),
        (_shape("dog", [[1, 1]], "mask", mask="?"), "no base64"),
        (_shape("dog", [[1, 1]], "mask", mask=None), "no base64"),
        (_shape("dog", [[1, 1]], "mask", mask="aGVsbG8="), "its mask is no picture"),
        (_shape("dog", [[1, 1]], "circle"), "it is a circle of 1 points"),
        (_shape("dog", [[1, 1], [2, 2, 2], [4, 4]]), "no pairs of numbers"),
        (_shape("dog", [[1, 1], [9e9, 2], [4, 4]]), "not within 1000000 pixels"),
        (_shape("", _corners(2)), "its label is ''"),
        ({"points": _corners(2)}, "it lacks 'label'"),
        ("dog", "shape 0 cannot be read: it is no object of json"),
    ],
)
def test_broken_labelme(tmp_path: Path, shape: Any, message: str) -> None:
    _frames(tmp_path, 2)
    _label(tmp_path, 1, shape)
    with pytest.raises(DataError, match=message):
        _run("prepare_labelme", tmp_path)


def test_labelme_files_without_a_picture_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _frames(tmp_path, 2)
    _label(tmp_path, 1, _shape("dog", _corners(2)))
    for _ in range(2):  # what was written before is no annotation
        _run("prepare_labelme", tmp_path)
        assert "no picture" not in capsys.readouterr().out
    _label(tmp_path, 7, _shape("dog", _corners(2)))
    _run("prepare_labelme", tmp_path)
    told = capsys.readouterr().out
    assert "1 files have no picture of their name, such as 007.json" in told


def test_labelme_says_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of pictures"):
        _run("prepare_labelme", tmp_path)
    _frames(tmp_path, 1)
    _label(tmp_path, 0, imageHeight=9)
    with pytest.raises(DataError, match=r"is for pictures of \[9, 32\]"):
        _run("prepare_labelme", tmp_path)


META = "<meta><task><start_frame>{}</start_frame><frame_filter>{}</frame_filter></task></meta>"


def _points(left: int) -> str:
    return ";".join(f"{x}.0,{y}.00" for x, y in _corners(left))


def _cvat(folder: Path, body: str, *, start: int = 0, step: str = "") -> tuple[object, ...]:
    _frames(folder / "frames", 3)
    path = folder / "annotations.xml"
    text = f"<annotations>{META.format(start, step)}{body}</annotations>"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>{text}')
    return path, "--images", folder / "frames"


def test_cvat_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = 'xtl="{}" ytl="2" xbr="{}" ybr="10" keyframe="1" outside="{}"'
    body = (
        '<track id="0" label="dog">'
        f'<polygon frame="10" outside="0" occluded="0" points="{_points(2)}"/>'
        f'<polygon frame="15" outside="0" occluded="0" points="{_points(4)}"/>'
        f'<polygon frame="20" outside="1" occluded="0" points="{_points(4)}"/></track>'
        f'<track id="1" label="cat"><box frame="15" {box.format(12, 20, 0)}/>'
        f'<box frame="20" {box.format(14, 22, 0)} rotation="90"/></track>'
        '<track id="2" label="cat">'
        '<ellipse frame="20" outside="0" cx="16" cy="17" rx="10" ry="4"/></track>'
        '<track id="3" label="cat"><points frame="10" points="1,1"/></track>'
    )
    _run("prepare_cvat", *_cvat(tmp_path, body, start=10, step="step=5"))
    content, masks = _load(tmp_path / "instances.json")
    assert "left out, since they are no area: 1 of kind points" in capsys.readouterr().out
    assert content["image_root"] == "frames"
    assert [a["category_id"] for a in content["annotations"]] == [2, 1, 1]
    dog, cat, ellipse = masks
    np.testing.assert_array_equal(dog[0], _square(2))
    np.testing.assert_array_equal(dog[1], _square(4))
    assert dog[2] is None
    assert cat[0] is None
    np.testing.assert_array_equal(cat[1], _square(12))
    np.testing.assert_array_equal(cat[2], _square(14))  # a quarter turn of a square
    assert abs(ellipse[2].sum() - np.pi * 40) < 15
    assert ellipse[2][17, 8]
    assert not ellipse[2][10].any()


def test_several_cvat_exports_are_videos_of_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    polygon = f'<polygon frame="{{}}" outside="0" points="{_points(2)}"/>'
    body = TRACK.format("".join(polygon.format(frame) for frame in range(3)))
    files = [_cvat(tmp_path / name, body) for name in ("walk", "running")]
    out = tmp_path / "both.json"
    words = [[command[place] for command in files] for place in (0, 2)]
    _run("prepare_cvat", *words[0], "--images", *words[1], "--out", out)
    assert "leave out" not in capsys.readouterr().out
    first = [video["file_names"][0] for video in json.loads(out.read_text())["videos"]]
    assert first == ["walk/frames/000.jpg", "running/frames/000.jpg"]
    with pytest.raises(UserError, match="2 exports, but 1 folders in --images"):
        _run("prepare_cvat", *words[0], "--images", words[1][0])


def test_tracks_of_keyframes_alone_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    polygon = f'<polygon frame="{{}}" outside="0" points="{_points(2)}"/>'
    _run("prepare_cvat", *_cvat(tmp_path, TRACK.format(polygon.format(0) + polygon.format(2))))
    told = capsys.readouterr().out
    assert "1 tracks leave out frames" in told
    assert "such as track 0 after frame 0" in told


def test_tracks_of_a_group_are_one_object(tmp_path: Path) -> None:
    mask = '<mask frame="{}" outside="0" rle="0,4" left="{}" top="3" width="2" height="2"/>'
    gone = '<mask frame="{}" outside="1" rle="0,4" left="0" top="3" width="2" height="2"/>'
    body = "".join(
        f'<track id="{t}" label="dog" group_id="7">'
        f"{mask.format(t, 9 * t)}{gone.format(t + 1)}</track>"
        for t in range(2)
    )
    _run("prepare_cvat", *_cvat(tmp_path, body))
    _, masks = _load(tmp_path / "instances.json")
    assert len(masks) == 1
    np.testing.assert_array_equal(masks[0][0], _square(0, 3, 2))
    np.testing.assert_array_equal(masks[0][1], _square(9, 3, 2))


def test_boxes_turn_clockwise(tmp_path: Path) -> None:
    attributes = 'xtl="6" ytl="10" xbr="26" ybr="12" outside="0" rotation="45"'
    body = f'<track id="0" label="bar"><box frame="0" {attributes}/></track>'
    _run("prepare_cvat", *_cvat(tmp_path, body))
    mask = _load(tmp_path / "instances.json")[1][0][0]
    assert mask[16, 21]  # below on the right
    assert not mask[16, 10]


def test_cvat_images(tmp_path: Path) -> None:
    image = f'<image id="{{0}}" name="set/{{0:03d}}.jpg" width="{WIDTH}" height="{HEIGHT}">'
    polygon = '<polygon label="dog" points="{}" group_id="1"/>'
    runs = '<mask label="cat" rle="6, 4, 2" left="20" top="8" width="6" height="2"/>'
    body = (
        f"{image.format(0)}{polygon.format(_points(2))}{runs}</image>"
        f"{image.format(2)}{polygon.format(_points(4))}</image>"
    )
    _run("prepare_cvat", *_cvat(tmp_path, body))
    content, masks = _load(tmp_path / "instances.json")
    assert [a["category_id"] for a in content["annotations"]] == [2, 1]
    np.testing.assert_array_equal(masks[0][2], _square(4))
    cat = np.zeros((HEIGHT, WIDTH), dtype=bool)
    cat[9, 20:24] = True
    np.testing.assert_array_equal(masks[1][0], cat)


TRACK = '<track id="0" label="dog">{}</track>'
IMAGE = '<image id="0" name="{}" width="32" height="{}">{}</image>'
POLYGON = '<polygon frame="{}" outside="0" label="dog" points="{}"/>'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (TRACK.format(POLYGON.format(9, _points(2))), "frame 9 is not there: .* has 3 pictures"),
        (TRACK.format(POLYGON.format(1, "1,1;2,2")), "frame 1 cannot be read"),
        (TRACK.format(POLYGON.format(1, "1,1;2,a;3,3")), "frame 1 cannot be read"),
        (TRACK.format('<box frame="0" xtl="1"/>'), "frame 0 cannot be read: it lacks 'ytl'"),
        (TRACK.format(POLYGON.format("x", _points(2))), "a shape at frame 'x'"),
        (IMAGE.format("no.jpg", 24, POLYGON.format(0, _points(2))), "no picture 'no.jpg'"),
        (IMAGE.format("000.jpg", 9, POLYGON.format(0, _points(2))), "rows and columns"),
        (
            IMAGE.format(
                "000.jpg", 24, '<mask rle="1,2" left="0" top="0" width="2" height="2" label="a"/>'
            ),
            "runs cover 3 of 4",
        ),
        (
            f'<track id="4"><polygon frame="0" points="{_points(2)}"/></track>',
            "track 4 has no label",
        ),
        ("<meta><project/></meta>", "export its tasks one by one"),
        ("", "neither tracks nor images"),
    ],
)
def test_broken_cvat(tmp_path: Path, body: str, message: str) -> None:
    arguments = _cvat(tmp_path, body)
    with pytest.raises(DataError, match=message):
        _run("prepare_cvat", *arguments)


@pytest.mark.parametrize(
    ("text", "message"), [("<annotations>", "not valid xml"), ("<a/>", "begins with <a>")]
)
def test_no_cvat(tmp_path: Path, text: str, message: str) -> None:
    path, *rest = _cvat(tmp_path, "")
    Path(str(path)).write_text(text)
    with pytest.raises(DataError, match=message):
        _run("prepare_cvat", path, *rest)


def test_parts_are_cut_at_the_borders() -> None:
    paste = importlib.import_module("vis_json").paste
    part = np.ones((4, 4), dtype=bool)
    for left, top, area in ((-2, -1, 6), (2, 3, 6), (0, 0, 16), (9, 0, 0), (0, -9, 0)):
        assert paste(part, left, top, (6, 4)).sum() == area
