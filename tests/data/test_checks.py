"""Every kind of defect is planted into a sound data set, and found there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidseg import rle
from vidseg.data.checks import KINDS, Effort, Findings, check_data_set, compare_data_sets
from vidseg.data.ytvis import JsonFile
from vidseg.errors import DataError

HEIGHT, WIDTH = 24, 32
Plant = Callable[[dict[str, Any], Path], object]


def _mask(top: int, left: int, bottom: int, right: int) -> Any:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return rle.to_text(rle.encode(mask))


def _runs(*runs: int) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": list(runs)}


@pytest.fixture
def sound(small_set: Any) -> Any:
    """The small set with boxes and areas, and no picture twice."""
    for annotation in small_set.content["annotations"]:
        masks = [m and rle.from_text(m) for m in annotation["segmentations"]]
        annotation["bboxes"] = [m and rle.boxes([m])[0].tolist() for m in masks]
        annotation["areas"] = [m and rle.area(m) for m in masks]
    _paint(small_set.frame(1, 0), 77)
    small_set.write()
    return small_set


def _paint(path: Path, grey: int, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> None:
    pixels = np.full((*size, 3), grey, dtype=np.uint8)
    pixels[:4] = 200
    Image.fromarray(pixels).save(path, **options)


def _check(path: Path | str, **effort: Any) -> Findings:
    return check_data_set(str(path), Effort(**effort))


def _kinds(findings: Findings) -> set[str]:
    return {item.kind for item in findings.items}


def _set(*path: Any, to: Any) -> Plant:
    def plant(content: dict[str, Any], _: Path) -> None:
        item: Any = content
        for key in path[:-1]:
            item = item[key]
        item[path[-1]] = to

    return plant


def _drop(*path: Any) -> Plant:
    def plant(content: dict[str, Any], _: Path) -> None:
        item: Any = content
        for key in path[:-1]:
            item = item[key]
        del item[path[-1]]

    return plant


def _file(name: str, change: Callable[[Path], object]) -> Plant:
    return lambda _, folder: change(folder / "JPEGImages" / name)


def _cut_off(path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:900])


def _turn(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _paint(path, 30, (WIDTH, HEIGHT), exif=exif)


def _corners(content: dict[str, Any], _: Path) -> None:
    for annotation in content["annotations"]:
        for box in filter(None, annotation["bboxes"]):
            box[2:] = [box[0] + box[2], box[1] + box[3]]


def _copy_object(content: dict[str, Any], _: Path) -> None:
    content["annotations"].append({**content["annotations"][0], "id": 99})


def _swap(content: dict[str, Any], _: Path) -> None:
    first, second = content["annotations"][:2]
    second.update({key: list(first[key]) for key in ("segmentations", "bboxes", "areas")})
    for frame, left in enumerate((20, 20, 20, 2, 2, 2)):
        other = {20: 2, 2: 20}[left]
        for annotation, column in ((first, other), (second, left)):
            annotation["segmentations"][frame] = _mask(4, column, 12, column + 8)
            annotation["bboxes"][frame] = [column, 4, 8, 8]


def _hide(content: dict[str, Any], _: Path) -> None:
    for key in ("segmentations", "bboxes", "areas"):
        content["annotations"][0][key] = [None] * 6


def _show_once(content: dict[str, Any], _: Path) -> None:
    for key in ("segmentations", "bboxes", "areas"):
        content["annotations"][0][key][1:] = [None] * 5


def _share(content: dict[str, Any], _: Path) -> None:
    content["videos"][1]["file_names"] = content["videos"][0]["file_names"][:1]


def _second_class_of_the_name(content: dict[str, Any], _: Path) -> None:
    content["categories"].append({"id": 8, "name": "Bar "})


SEGMENTATION = ("annotations", 0, "segmentations", 2)
PLANTED: list[tuple[str, str, Plant]] = [
    ("missing-key", "categories: a list is expected", _drop("categories")),
    ("missing-key", "videos: the list is empty", _set("videos", to=[])),
    ("missing-key", "video 4: lacks the key file_names", _drop("videos", 0, "file_names")),
    ("missing-key", "video 4: lacks height", _drop("videos", 0, "height")),
    ("missing-key", r"annotations\[1\]: the annotation has no id", _drop("annotations", 1, "id")),
    ("missing-key", "annotation 1: lacks the key video_id", _drop("annotations", 0, "video_id")),
    ("missing-key", "lacks the key segmentations", _drop("annotations", 0, "segmentations")),
    (
        "missing-key",
        "segmentations; segmentation is a key of images",
        lambda c, _: c["annotations"][0].update(
            segmentation=c["annotations"][0].pop("segmentations")
        ),
    ),
    ("wrong-value", r"category_id is \[3\]", _set("annotations", 0, "category_id", to=[3])),
    ("wrong-value", "height is 0", _set("videos", 0, "height", to=0)),
    ("wrong-value", "file_names is empty", _set("videos", 0, "file_names", to=[])),
    ("wrong-value", "file_names is not a list", _set("videos", 0, "file_names", to="v4")),
    ("wrong-value", "is a str", _set("annotations", 0, to="x")),
    ("wrong-value", "bboxes is a dict", _set("annotations", 0, "bboxes", to={"a": 1})),
    ("wrong-value", "iscrowd is 'no'", _set("annotations", 0, "iscrowd", to="no")),
    ("duplicate-id", "category 3", _set("categories", 0, "id", to=3)),
    ("duplicate-id", "videos 4 are two", _set("videos", 1, "id", to=4)),
    ("duplicate-id", "annotations 2 are two", _set("annotations", 0, "id", to=2)),
    ("length-mismatch", "length is 9, file_names 6", _set("videos", 0, "length", to=9)),
    ("missing-frame", r"1 of 6 are missing, .*v4/003\.png$", _file("v4/003.png", Path.unlink)),
    (
        "missing-frame",
        r"all are missing, .*v2/000\.png; there is 000\.PNG",
        _file("v2/000.png", lambda path: path.rename(path.with_suffix(".PNG"))),
    ),
    ("damaged-frame", "is empty", _file("v4/003.png", lambda path: path.write_bytes(b""))),
    ("damaged-frame", "not a picture", _file("v4/003.png", lambda path: path.write_text("no"))),
    ("damaged-frame", "cannot be decoded", _file("v4/003.png", _cut_off)),
    (
        "frame-size",
        "9 high and 7 wide, the data set states height 24 and width 32",
        _file("v4/003.png", lambda path: _paint(path, 9, (9, 7))),
    ),
    ("turned-frame", "v4/003", _file("v4/003.png", _turn)),
    ("unknown-item", "video_id is 5", _set("annotations", 0, "video_id", to=5)),
    ("unknown-category", "category_id is 5", _set("annotations", 0, "category_id", to=5)),
    (
        "entry-count",
        "segmentations has 5 entries, but video 4 has 6 frames",
        _drop("annotations", 0, "segmentations", 5),
    ),
    ("entry-count", "segmentations has 0", _set("annotations", 0, "segmentations", to=[])),
    ("entry-count", "bboxes has 5", _drop("annotations", 0, "bboxes", 5)),
    ("broken-mask", "is a str, not RLE", _set(*SEGMENTATION, to="x")),
    ("broken-mask", "lacks the key 'size'", _set(*SEGMENTATION, to={"counts": "04"})),
    ("broken-mask", "a run of -4 pixels", _set(*SEGMENTATION, to=_runs(-4, 772))),
    ("broken-mask", "covers 9 pixels", _set(*SEGMENTATION, to=_runs(4, 5))),
    ("broken-mask", "cover 4 pixels", _set(*SEGMENTATION, to={**_runs(), "counts": "4"})),
    ("broken-mask", "stop inside a number", _set(*SEGMENTATION, to={**_runs(), "counts": "4P"})),
    ("broken-mask", "a character that no RLE", _set(*SEGMENTATION, to={**_runs(), "counts": "4 "})),
    ("broken-mask", "cover 2 pixels", _set(*SEGMENTATION, to={**_runs(), "counts": "4N"})),
    ("broken-mask", "no finite", _set(*SEGMENTATION, to=[[1, 1, 9, float("nan"), 9, 9]])),
    ("broken-mask", "not within 10", _set(*SEGMENTATION, to=[[1, 1, 9e9, 1, 9, 9]])),
    ("broken-mask", "not of polygons", _set(*SEGMENTATION, to=[1, 1, 9, 1, 9, 9])),
    (
        "mask-size",
        r"has size \[9, 7\], video 4 \[24, 32\]",
        _set(*SEGMENTATION, to={"size": [9, 7], "counts": [63]}),
    ),
    ("mask-transposed", "32, 24", _set(*SEGMENTATION, to={**_runs(768), "size": [32, 24]})),
    ("duplicate-class", "bar, Bar : has the ids 3, 8", _second_class_of_the_name),
    ("outside-path", r"\.\./x", _set("videos", 0, "file_names", 1, to="../x/001.png")),
    ("outside-path", "/x/001", _set("videos", 0, "file_names", 1, to="/x/001.png")),
    ("repeated-frame", "v4/000", _set("videos", 0, "file_names", 1, to="v4/000.png")),
    (
        "frame-order",
        r"v4/001\.png",
        lambda content, _: content["videos"][0]["file_names"].insert(
            1, content["videos"][0]["file_names"].pop(2)
        ),
    ),
    ("shared-frame", r"video 2: v4/000\.png is a frame of video 4", _share),
    (
        "same-picture",
        "video 2: has 1 pictures of video 4",
        _file("v2/000.png", lambda path: shutil.copy(path.parents[1] / "v4" / "003.png", path)),
    ),
    (
        "blank-frame",
        "v2/000",
        _file("v2/000.png", lambda path: Image.new("RGB", (WIDTH, HEIGHT)).save(path)),
    ),
    (
        "still-frame",
        r"video 4: .*v4/003\.png$",
        _file("v4/003.png", lambda path: shutil.copy(path.with_name("002.png"), path)),
    ),
    ("missing-frame", "parted by /", _set("videos", 0, "file_names", 1, to="v4\\001.png")),
    ("short-polygon", "4 numbers", _set(*SEGMENTATION, to=[[1, 1, 5, 1], [4, 4, 12, 4, 12, 12]])),
    ("polygon-outside", "x 4 to 99", _set(*SEGMENTATION, to=[[4, 4, 99, 4, 12, 12]])),
    ("empty-mask", "has no pixel", _set(*SEGMENTATION, to=_runs(HEIGHT * WIDTH))),
    ("tiny-mask", "has 2 pixels", _set(*SEGMENTATION, to=_runs(8, 2, HEIGHT * WIDTH - 10))),
    ("full-mask", "covers 768 of 768", _set(*SEGMENTATION, to=_runs(0, HEIGHT * WIDTH))),
    ("never-visible", "6 frames of video 4", _hide),
    ("single-frame-object", "frame 0 of video 4", _show_once),
    ("same-object", "annotation 99: has the masks of annotation 1", _copy_object),
    ("swapped-objects", "annotation 1: and annotation 2 of video 4 at frame 3", _swap),
    ("box-mismatch", "the mask lies in", _set("annotations", 0, "bboxes", 2, to=[0, 0, 3, 3])),
    ("box-mismatch", "not 4 numbers", _set("annotations", 0, "bboxes", 2, to=[0, 0, 3])),
    ("box-mismatch", "is absent", _set("annotations", 1, "bboxes", 5, to=[0, 0, 3, 3])),
    ("box-as-corners", r"segmentations\[0\] has the box .*, and 5 frames more", _corners),
    ("area-mismatch", "has 64 pixels, .* 640", _set("annotations", 0, "areas", 2, to=640)),
    ("annotation-size", "height 32", lambda c, _: c["annotations"][0].update(height=32, width=24)),
    ("wrong-crowd", "iscrowd is 3", _set("annotations", 0, "iscrowd", to=3)),
    ("no-annotations", "no key annotations", _drop("annotations")),
    ("no-objects", "1 videos: video 2", lambda c, _: c["annotations"].__delitem__(slice(2, 4))),
    ("unused-class", "1 of 3: far", lambda c, _: c["categories"].append({"id": 1, "name": "far"})),
    ("id-zero", "annotation 0", _set("annotations", 0, "id", to=0)),
]
# Planted by tests of their own.
OTHERS = {
    *("unreadable", "classes-differ", "shared-data", "not-looked-into"),
    *("damaged-document", "feature-dim", "not-finite", "constant-document", "same-document"),
    *("damaged-video", "cut-video"),
}


def test_a_sound_set_has_no_defects(sound: Any) -> None:
    findings = _check(sound.path)
    assert findings.items == []
    counts = {"videos": 2, "objects": 4, "frames": 7, "masks": 11, "pictures": 7}
    assert findings.counts == counts


def test_whole_numbers_may_have_a_point(sound: Any) -> None:
    sound.write(lambda content: _set("annotations", 0, "category_id", to=3.0)(content, sound.path))
    assert _check(sound.path).items == []


def test_all_kinds_are_planted() -> None:
    assert {kind for kind, _, _ in PLANTED} | OTHERS == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "message", "plant"), PLANTED, ids=[f"{k}-{n}" for n, (k, _, _) in enumerate(PLANTED)]
)
def test_planted(sound: Any, kind: str, message: str, plant: Plant) -> None:
    sound.write(lambda content: plant(content, sound.folder))
    findings = _check(sound.path)
    told = [str(item) for item in findings.items if item.kind == kind]
    assert told, findings.items
    assert any(re.search(message, text) for text in told), told
    try:
        records = JsonFile(str(sound.path))()
        refused = bool(records.damaged)
    except DataError:
        refused = True
    # Whatever stops a training is an error here.
    assert not refused or findings.number_of("error")


def test_one_defect_does_not_hide_another(sound: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        content["videos"][1]["length"] = 3
        content["annotations"][0]["category_id"] = 5
        content["annotations"][1]["segmentations"][0] = "x"
        content["annotations"][3]["iscrowd"] = 2

    sound.write(change)
    sound.frame(0, 2).unlink()
    findings = _check(sound.path)
    expected = ["broken-mask", "length-mismatch", "missing-frame", "unknown-category"]
    found = [kind for kind, _ in findings.by_kind()]
    assert sorted(found[:4]) == expected
    assert found[4] == "wrong-crowd"


def test_the_worst_is_listed_first(sound: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["id"] = 0  # a note
        content["annotations"][1]["iscrowd"] = 2  # a warning
        content["annotations"][2]["video_id"] = 55
        content["annotations"][3]["video_id"] = 55
        content["videos"][0]["length"] = 1

    sound.write(change)
    kinds = [kind for kind, _ in _check(sound.path).by_kind()]
    assert kinds[:3] == ["unknown-item", "length-mismatch", "wrong-crowd"]
    written = _check(sound.path).to_json()["findings"]
    assert [one["severity"] for one in written[:4]] == ["error"] * 3 + ["warning"]


def test_quick_looks_at_headers_only(sound: Any) -> None:
    _cut_off(sound.frame(0, 3))
    _paint(sound.frame(0, 4), 1, (9, 9))
    assert _kinds(_check(sound.path)) == {"damaged-frame", "frame-size"}
    assert _kinds(_check(sound.path, is_quick=True)) == {"frame-size", "not-looked-into"}


@pytest.mark.parametrize("text", ["", "[1]", '{"videos": '])
def test_files_that_cannot_be_read(sound: Any, text: str) -> None:
    sound.path.write_text(text)
    findings = _check(sound.path)
    assert _kinds(findings) == {"unreadable"}
    assert str(sound.path) in findings.items[0].message


def test_a_path_to_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"no such file: nowhere/instances\.json"):
        _check("nowhere/instances.json")


def test_missing_public_sets_say_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    findings = _check("ovis_train")
    assert _kinds(findings) == {"unreadable"}
    assert "ovis/train/<video>/img_0000001.jpg" in findings.items[0].message


def test_coco(tmp_path: Path) -> None:
    _paint(tmp_path / "a.png", 1)
    _paint(tmp_path / "b.png", 2)
    square = [[2, 2, 10, 2, 10, 10, 2, 10]]
    common = {"category_id": 1, "iscrowd": 0, "bbox": [2, 2, 8, 8], "area": 64}
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {**common, "id": 1, "image_id": 1, "segmentation": square},
            {**common, "id": 2, "image_id": 2, "segmentation": square},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    findings = _check(path)
    assert findings.items == []
    assert findings.counts["images"] == 2
    content["annotations"][1].update(image_id=9)  # type: ignore[attr-defined]
    content["annotations"][0].update(bbox=[2, 2, 3, 3])  # type: ignore[attr-defined]
    content["images"][1]["height"] = 99
    path.write_text(json.dumps(content))
    kinds = {"unknown-item", "box-mismatch", "frame-size", "no-objects"}
    assert _kinds(_check(path)) == kinds


def test_sets_are_compared(sound: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(sound.folder, other)
    content = json.loads((other / "instances.json").read_text())
    content["categories"][0]["name"] = "circle"
    (other / "instances.json").write_text(json.dumps(content))
    _paint(other / "JPEGImages" / "v2" / "000.png", 123)
    first, second = _check(sound.path), _check(other / "instances.json")
    compare_data_sets([first, second])
    assert first.items == []
    assert _kinds(second) == {"shared-data", "classes-differ"}
    told = {item.kind: str(item) for item in second.items}
    assert "1 are in" in told["shared-data"]
    assert told["shared-data"].endswith("video 4")
    assert "is 'circle', but 'square'" in told["classes-differ"]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Four documents of two topics."""
    rng = np.random.default_rng(0)
    documents = []
    for number in range(4):
        np.save(tmp_path / f"d{number}.npy", rng.normal(size=(10, 3)))
        topic = ("sports", "weather")[number % 2]
        documents.append({"id": number, "path": f"d{number}.npy", "topic": topic})
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"documents": documents, "topics": ["sports", "weather"]}))
    return path


def _spoil_rows(path: Path, value: float, rows: Any) -> None:
    features = np.load(path)
    features[rows] = value
    np.save(path, features)


@pytest.mark.parametrize(
    ("kind", "message", "spoil"),
    [
        ("damaged-document", "d1.npy is missing", lambda f: (f / "d1.npy").unlink()),
        ("damaged-document", "d1.npy", lambda f: (f / "d1.npy").write_bytes(b"\x93NUMPY")),
        ("feature-dim", "has 4 features", lambda f: np.save(f / "d1.npy", np.eye(4))),
        ("not-finite", "2 of 10 frames", lambda f: _spoil_rows(f / "d1.npy", np.nan, [4, 6])),
        ("constant-document", "10 frames", lambda f: _spoil_rows(f / "d1.npy", 0, slice(None))),
        ("same-document", "document 1", lambda f: shutil.copy(f / "d1.npy", f / "d2.npy")),
    ],
)
def test_documents(index: Path, kind: str, message: str, spoil: Callable[[Path], object]) -> None:
    assert _check(index).items == []
    spoil(index.parent)
    findings = _check(index)
    assert _kinds(findings) == {kind}
    assert message in str(findings.items[0])
    assert _kinds(_check(index, is_quick=True)) <= {kind, "not-looked-into"}


def test_entries_of_documents(index: Path) -> None:
    content = json.loads(index.read_text())
    content["documents"][0]["topic"] = "sport"
    content["documents"][1]["lenght"] = 10
    content["documents"][2]["length"] = 9
    content["topics"].append("far")
    index.write_text(json.dumps(content))
    findings = _check(index)
    told = [str(item) for item in findings.items if item.kind == "damaged-document"]
    assert len(told) == 3
    for words in ("nearest: sports", "did you mean length?", "length says 9"):
        assert any(words in text for text in told), told
    content["documents"] = []
    index.write_text(json.dumps(content))
    assert _kinds(_check(index)) == {"missing-key"}


def test_folder_of_documents(index: Path) -> None:
    index.unlink()
    _spoil_rows(index.parent / "d1.npy", np.inf, 3)
    findings = _check(index.parent)
    assert _kinds(findings) == {"not-finite"}
    assert findings.counts == {"documents": 4, "frames": 40}


def test_videos(tmp_path: Path) -> None:
    from vidseg.video.writer import VideoWriter

    rng = np.random.default_rng(0)
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b"):
        with VideoWriter(folder / f"{name}.mp4", fps=5.0) as writer:
            for _ in range(8):
                writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    (folder / "c.mp4").write_bytes(b"no video")
    findings = _check(folder)
    assert [(item.kind, item.where) for item in findings.items] == [("damaged-video", "video c")]
    assert findings.counts["videos"] == 3


def test_cut_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidseg.video.writer import VideoWriter

    with VideoWriter(tmp_path / "a.mp4", fps=5.0) as writer:
        for grey in range(8):
            writer.write(np.full((48, 64, 3), 9 * grey, dtype=np.uint8))
    frames = [np.zeros((48, 64, 3), np.uint8)] * 5
    monkeypatch.setattr("vidseg.data.checks.data_sets.VideoReader", lambda path: frames)
    findings = _check(tmp_path)
    assert _kinds(findings) == {"cut-video"}
    assert "5 of 8 frames decode" in str(findings.items[0])


def test_generated_sets_are_sound() -> None:
    assert _check("documents_synthetic_test", is_quick=True).number_of("error") == 0
