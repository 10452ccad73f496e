from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vidseg.data.coco import load_coco_json
from vidseg.data.ytvis import JsonFile, load_ytvis_json
from vidseg.errors import DataError

Change = Callable[[dict[str, Any]], object]


def _read(small_set: Any) -> Any:
    return load_ytvis_json(small_set.path, small_set.folder / "JPEGImages")


def test_records(small_set) -> None:
    records = _read(small_set)
    assert [record["video_id"] for record in records] == [2, 4]
    assert [len(frame) for frame in records[1]["annotations"]] == [2, 2, 2, 1, 1, 1]
    assert records[1]["annotations"][0][0]["category_id"] == 1  # id 7 comes after id 3
    assert Path(records[1]["file_names"][5]).is_file()
    assert records.annotated


def test_file_without_annotations(small_set) -> None:
    small_set.write(lambda content: content.pop("annotations"))
    records = _read(small_set)
    assert not records.annotated
    assert "annotations" not in records[0]


def test_degenerate_polygons_are_dropped(small_set) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentations"][:3] = [
            [[1, 1, 5, 1]],
            [[1, 1, 5, 1, 5, 5, 2], [1, 1, 9, 1, 9, 9]],
            [],
        ]

    small_set.write(change)
    frames = _read(small_set)[1]["annotations"]
    assert [len(frame) for frame in frames[:3]] == [1, 2, 1]
    assert frames[1][0]["segmentation"] == [[1, 1, 9, 1, 9, 9]]


def _set(*path: Any, to: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        item: Any = content
        for key in path[:-1]:
            item = item[key]
        item[path[-1]] = to

    return change


def _drop(*path: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        item: Any = content
        for key in path[:-1]:
            item = item[key]
        del item[path[-1]]

    return change


_WRONG_SIZE = {"size": [5, 5], "counts": "P1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("videos"), "lacks the key videos"),
        (_set("videos", to={}), "videos is a dict"),
        (_set("videos", to=[]), "videos is empty"),
        (_drop("videos", 0, "id"), "a video lacks the key id"),
        (_drop("videos", 0, "height"), "video 4 lacks the key height"),
        (_set("videos", 0, "file_names", to=[]), "video 4 has no frames: file_names is empty"),
        (_set("videos", 0, "length", to=9), "video 4 has length 9, but 6 file_names"),
        (_set("videos", 0, "width", to=-3), "video 4 has height 24 and width -3"),
        (_set("videos", 1, "id", to=4), "two videos have the id 4"),
        (_drop("categories"), "lacks the key categories"),
        (_set("categories", to=[]), "categories is empty"),
        (_set("categories", 0, "id", to=3), "two categories have the id 3"),
        (_drop("annotations", 0, "segmentations"), "annotation 1 lacks the key segmentations"),
        (_set("annotations", 0, "video_id", to=99), "annotation 1 has video_id 99"),
        (_set("annotations", 0, "category_id", to=8), "category_id 8, which is not in categories"),
        (_set("annotations", 1, "id", to=1), "two annotations have the id 1"),
        (
            _set("annotations", 0, "segmentations", to=[None]),
            "annotation 1 has 1 segmentations, but video 4 has 6 frames",
        ),
        (
            _set("annotations", 0, "segmentations", 2, to=_WRONG_SIZE),
            r"annotation 1, segmentations\[2\] has size \[5, 5\], but the video is 24 high",
        ),
        (
            _set("annotations", 0, "segmentations", 2, to={"size": [24, 32], "counts": "P1"}),
            r"annotation 1, video 4, frame 2: an RLE is damaged: its runs cover 32 pixels",
        ),
        (
            _set("annotations", 0, "segmentations", 1, to={"size": [24, 32], "counts": [5, 4]}),
            "annotation 1, video 4, frame 1 cannot be read: an uncompressed RLE covers 9 pixels",
        ),
        (_set("annotations", 0, "segmentations", 0, to="x"), "neither an RLE .* nor a list"),
        (
            _set("annotations", 0, "segmentations", 0, "size", to=None),
            "annotation 1 cannot be read",
        ),
        (_set("annotations", 0, "iscrowd", to="x"), "1 cannot be read: invalid literal"),
        (_set("annotations", 0, "bboxes", to=[[0, 0, 1, 1]]), "segmentations, but 1 bboxes"),
        (_set("annotations", 0, "category_id", to="1"), "category_id '1', which is not"),
        (_set("annotations", 0, "video_id", to=[1]), "annotation 1 cannot be read: unhashable"),
        (_set("categories", 0, "id", to="cat"), "categories cannot be read"),
        (_set("videos", 0, "id", to={}), r"video {} cannot be read: unhashable"),
        (_set("videos", 0, "file_names", to="a.jpg"), "file_names is no list, but 'a.jpg'"),
        (_set("videos", 0, "file_names", 0, to=5), "cannot be read: unsupported operand"),
    ],
)
def test_broken_file_is_told_in_one_sentence(small_set, change: Change, message: str) -> None:
    path = small_set.write(change)
    with pytest.raises(DataError, match=message) as caught:
        _read(small_set)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_json(small_set) -> None:
    small_set.path.write_text('{"videos": [\n  {"id": 1,, }\n]}')
    with pytest.raises(DataError, match=r"not valid json: .* in line 2"):
        _read(small_set)
    small_set.path.write_text("[1]")
    with pytest.raises(DataError, match="holds a list"):
        _read(small_set)
    small_set.path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="it is not text"):
        _read(small_set)
    small_set.path.unlink()
    with pytest.raises(DataError, match=r"annotation file .* does not exist"):
        _read(small_set)


def test_nesting_without_end(small_set) -> None:
    small_set.path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        _read(small_set)


def test_one_missing_frame(small_set) -> None:
    frames = sorted((small_set.folder / "JPEGImages").rglob("*.png"))
    frames[-1].unlink()
    with pytest.raises(DataError, match=rf"there is no .*{frames[-1].name}"):
        _read(small_set)


def test_missing_frame_folder(small_set) -> None:
    (small_set.folder / "JPEGImages").rename(small_set.folder / "elsewhere")
    with pytest.raises(DataError, match=r"the frames of .* are missing: there is no .*v2/000.png"):
        _read(small_set)


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 10, "width": 20}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 18,
                "iscrowd": 0,
                "bbox": [1, 1, 8, 8],
                "segmentation": [[1, 1, 9, 1, 9, 9]],
            }
        ],
    }
    return tmp_path / "instances.json", content


def test_coco_file(coco: tuple[Path, dict[str, Any]]) -> None:
    path, content = coco
    path.write_text(json.dumps(content))
    records = JsonFile(str(path))()
    assert records[0]["length"] == 1
    assert records[0]["annotations"][0][0]["category_id"] == 0
    assert records[0]["annotations"][0][0]["bbox"] == [1, 1, 8, 8]
    assert records.classes == ["dog"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("images", to=[]), "images is empty"),
        (_drop("images", 0, "file_name"), "image 5 lacks the key file_name"),
        (_set("images", 0, "file_name", to="b.png"), "the images of .* are missing: .*b.png"),
        (
            _set("annotations", 0, "image_id", to=6),
            "annotation 1 has image_id 6, which is no image",
        ),
        (
            _set("annotations", 0, "segmentation", to=_WRONG_SIZE),
            r"annotation 1, segmentation has size \[5, 5\], but the image is 10 high and 20 wide",
        ),
        (
            _set("annotations", 0, "segmentation", to={"size": [10, 20], "counts": "P1"}),
            "instances.json: annotation 1, image 5: an RLE is damaged",
        ),
    ],
)
def test_broken_coco_file_is_told_in_one_sentence(
    coco: tuple[Path, dict[str, Any]], change: Change, message: str
) -> None:
    path, content = coco
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        load_coco_json(path, path.parent)
