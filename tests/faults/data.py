"""Faults in data sets: annotations and frames, before the run and while it reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.faults.ground import (
    Ground,
    Outcome,
    Survivor,
    at_iteration,
    cut,
    fault,
    nothing_begun,
    resumes,
)

ANNOTATIONS = "Annotations"
FRAMES = "Frames"


def _file_becomes(name: str, content: Callable[[Path], bytes], says: str) -> None:
    @fault(ANNOTATIONS, name, says=says, code=1, survives=nothing_begun)
    def plant(ground: Ground) -> Outcome:
        ground.damage(ground.dataset, content(ground.dataset))
        ground.keep(ground.dataset)
        return ground.train()


def _content_becomes(
    name: str,
    change: Callable[[dict[str, Any]], object],
    says: str,
    survives: Survivor = nothing_begun,
) -> None:
    @fault(ANNOTATIONS, name, says=says, code=1, survives=survives)
    def plant(ground: Ground) -> Outcome:
        content = json.loads(ground.dataset.read_text())
        change(content)
        ground.damage(ground.dataset, json.dumps(content).encode())
        return ground.train()


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Sets the value at the end of a path of keys."""

    def change(content: Any) -> None:
        *way, key, value = path
        for step in way:
            content = content[step]
        content[key] = value

    return change


def _unset(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        *way, key = path
        for step in way:
            content = content[step]
        del content[key]

    return change


NOT_JSON = r"instances\.json is not valid json: "
_file_becomes("an empty json file", lambda path: b"", NOT_JSON)
_file_becomes("a json file cut in half", cut, NOT_JSON + r".* in line 1, column \d+")
_file_becomes("zero bytes in place of json", lambda path: bytes(99), NOT_JSON)
_file_becomes("a json file of another kind", lambda path: b"[1]", r"holds a list, expected an obj")
_content_becomes("no videos", _set("videos", []), r"instances\.json: videos is empty")
_content_becomes("videos as text", _set("videos", "four"), r"videos is a str, expected a list")
_content_becomes("a height as text", _set("videos", 1, "height", "high"), r"video 2 .*high")
_content_becomes("no file names", _unset("videos", 1, "file_names"), r"lacks the key file_names")
_content_becomes(
    "an unknown category",
    _set("annotations", 2, "category_id", 9),
    r"annotation 3 has category_id 9, which is not in categories",
)
_content_becomes(
    "an unknown video",
    _set("annotations", 2, "video_id", 77),
    r"annotation 3 has video_id 77, which is no video",
)
_content_becomes(
    "a mask of another size",
    _set("annotations", 2, "segmentations", 0, {"size": [9, 9], "counts": "PP1"}),
    r"annotation 3, .* has size \[9, 9\], but the video is 24 high and 32 wide",
)
_content_becomes(
    "a damaged RLE",
    _set("annotations", 0, "segmentations", [{"size": [24, 32], "counts": "~zz~"}] * 3),
    r"error: .*instances\.json.*RLE",
    survives=resumes,
)


def _frame_becomes(
    name: str,
    act: Callable[[Path], object],
    says: str,
    survives: Survivor = resumes,
) -> None:
    @fault(FRAMES, name, says=says, code=1, survives=survives)
    def plant(ground: Ground) -> Outcome:
        frames = sorted((ground.dataset.parent / "JPEGImages" / "2").iterdir())
        before = [frame.read_bytes() for frame in frames]
        ground.repair = lambda: [f.write_bytes(b) for f, b in zip(frames, before, strict=True)]
        for frame in frames:
            act(frame)
        return ground.train()


def _shrink(path: Path) -> None:
    with Image.open(path) as image:
        image.resize((16, 12)).save(path)


_frame_becomes(
    "a frame is missing",
    Path.unlink,
    r"error: .*the frames of .*instances\.json are missing: there is no .*2/0\.png",
    survives=nothing_begun,
)
_frame_becomes(
    "a frame is cut in half",
    lambda path: path.write_bytes(cut(path)),
    r"error: the frame .*2/\d\.png cannot be read: ",
)
_frame_becomes(
    "a frame is empty",
    lambda path: path.write_bytes(b""),
    r"error: the frame .*2/\d\.png cannot be read: ",
)
_frame_becomes(
    "a frame has another size",
    _shrink,
    r"the frame .*2/\d\.png is 12 high and 16 wide, but .*says height 24 and width 32",
)


def resumes_where_it_was(ground: Ground) -> None:
    """the run up to the step: mended, the same command goes on there and ends as one without it"""
    ground.repair()
    again = ground.train()
    assert "resuming from" in again.text
    assert "checkpoint_0000003.pth: iteration 3" not in again.text
    resumes(ground)


@fault(
    FRAMES,
    "frames vanish while the run goes on",
    says=r"error: the frame .*\.png is missing; video \d in .*instances\.json",
    code=1,
    survives=resumes_where_it_was,
)
def frames_vanish(ground: Ground) -> Outcome:
    folder = ground.dataset.parent / "JPEGImages"
    away = folder.with_name("away")

    def come_back() -> None:
        if away.exists():
            away.rename(folder)

    ground.repair = come_back
    at_iteration(ground.patch, 4, lambda: folder.rename(away))
    return ground.train()


@fault(
    FRAMES,
    "a cache that holds a part of the embedded data set",
    says=r"shapes_vis-v\d/easy/train holds a part of .* only, without instances\.json; remove it",
    code=1,
    survives=nothing_begun,
)
def half_a_cache(ground: Ground) -> Outcome:
    from vidseg.data import synthetic

    ground.patch.setenv("VIDSEG_CACHE", str(ground.folder / "cache"))
    part = synthetic._split_folder("easy", "train") / "JPEGImages" / "00001" / "00000.jpg"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"some")
    ground.keep(part)
    classes = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5)
    return ground.train("DATASETS.TRAIN", "('shapes_vis_easy_train',)", *classes)
