"""Payloads of reports on label maps."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidseg.evaluation.html_report import (
    Limits,
    Payload,
    davis_report,
    discovery_report,
    vps_report,
    vss_report,
)
from vidseg.evaluation.html_report.frames import FrameReader
from vidseg.evaluation.html_report.map_videos import (
    MapVideo,
    Segment,
    map_video_payload,
    values_in,
)
from vidseg.evaluation.panoptic_files import score_panoptic
from vidseg.evaluation.segment_files import score_discovery, score_region_boundary
from vidseg.evaluation.semantic import score_semantic


def write(folder: Path, **videos: list[str]) -> Path:
    """Writes label maps of one row from a word per frame; V is void."""
    for name, frames in videos.items():
        (folder / name).mkdir(parents=True)
        for number, word in enumerate(frames):
            row = [255 if letter == "V" else int(letter) for letter in word]
            Image.fromarray(np.array([row], np.uint8)).save(folder / name / f"{number}.png")
    return folder


def states(video: Payload) -> dict[str, list[str]]:
    return {side: [one["states"] for one in video[side]] for side in ("truth", "predictions")}


def assert_explained(made: dict[str, Any]) -> None:
    assert [figure["name"] for figure in made["figures"] if not figure["help"]] == []


def test_every_state_of_objects_without_names(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt", v=["110022", "110022", "110022", "110000", "000022"])
    results = write(tmp_path / "found", v=["330044", "330044", "440033", "000000", "500000"])
    made = davis_report(gt, results, *score_region_boundary(gt, results))
    (video,) = made["videos"]
    assert states(video) == {
        "truth": ["ffsm.", "ffs.m"],
        "predictions": ["ffs..", "ffs..", "....x"],
    }
    assert [one["partner"] for one in video["predictions"]] == [0, 1, None]
    assert [one["label"] for one in video["truth"]] == ["object 1", "object 2"]
    assert video["truth"][0]["masks"][0] == [0, 2, 4]
    assert video["truth"][0]["masks"][4] is None
    assert {one["score"] for one in video["predictions"]} == {None}
    assert_explained(made)


def test_named_objects_meet_their_own_numbers_alone(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt", v=["1122"] * 3)
    results = write(tmp_path / "found", v=["2211"] * 3)
    scores = score_region_boundary(gt, results, task="semi-supervised")
    made = davis_report(gt, results, *scores, task="semi-supervised")
    assert states(made["videos"][0]) == {"truth": ["mmm"] * 2, "predictions": ["xxx"] * 2}
    free = davis_report(gt, results, *score_region_boundary(gt, results))
    assert states(free["videos"][0]) == {"truth": ["fff"] * 2, "predictions": ["fff"] * 2}


def test_void_takes_no_part(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt", v=["11VVVV", "11VVVV"])
    results = write(tmp_path / "found", v=["111111", "110022"])
    made = davis_report(gt, results, *score_region_boundary(gt, results))
    assert states(made["videos"][0]) == {"truth": ["ff"], "predictions": ["ff", ".."]}


def test_slots_from_0_on_and_the_worst_video_first(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt", a=["0011"] * 2, b=["0011"] * 2)
    results = write(tmp_path / "found", a=["0011"] * 2, b=["0101"] * 2)
    made = discovery_report(gt, results, *score_discovery(gt, results), limits=Limits(videos=1))
    assert [row["id"] for row in made["ranking"]["rows"]] == ["b", "a"]
    assert [video["name"] for video in made["videos"]] == ["b"]
    assert states(made["videos"][0])["truth"] == ["mm"]
    whole = discovery_report(gt, results, *score_discovery(gt, results))
    assert states(whole["videos"][1]) == {"truth": ["ff"], "predictions": ["xx", "ff"]}
    assert [one["label"] for one in whole["videos"][1]["predictions"]] == ["slot 0", "slot 1"]
    assert_explained(made)


def test_classes_of_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gt = write(tmp_path / "gt", v=["1122", "1V22"])
    results = write(tmp_path / "found", v=["0011", "0001"])
    scores = score_semantic(gt, results, num_classes=3)
    (tmp_path / "images" / "v").mkdir(parents=True)
    Image.new("RGB", (8, 2)).save(tmp_path / "images" / "v" / "0.jpg")
    with caplog.at_level(logging.WARNING):
        made = vss_report(gt, results, scores, images=tmp_path / "images")
    assert_explained(made)
    assert states(made["videos"][0]) == {"truth": ["ff", "ff"], "predictions": ["ff", "ff"]}
    assert made["classNames"] == ["class 0", "class 1", "class 2"]
    rows = {row["name"]: row["values"] for row in made["classes"]["rows"]}
    assert rows == {"class 0": [75], "class 1": [75]}
    assert made["figures"][0]["value"] == pytest.approx(100 * scores.metrics["mIoU"], abs=1e-4)
    first, second = made["videos"][0]["frames"]
    assert first["image"].startswith("data:image/jpeg")
    assert second["image"] is None
    assert f"{tmp_path / 'images' / 'v' / '1.jpg'} does not exist" in caplog.text


def panoptic(folder: Path, name: str, frames: list[list[int]], kinds: dict[int, int]) -> Path:
    pictures = folder / {"gt": "panomasksRGB", "pred": "pan_pred"}[name] / "v"
    pictures.mkdir(parents=True)
    listed = []
    for number, ids in enumerate(frames):
        row = np.array([[[value % 256, value // 256, 0] for value in ids]], np.uint8)
        Image.fromarray(row).save(pictures / f"{number}.png")
        listed.append(
            {
                "file_name": f"{number}.jpg",
                "segments_info": [
                    {"id": value, "category_id": kinds[value], "area": ids.count(value)}
                    for value in sorted(set(ids) - {0})
                ],
            }
        )
    categories = [
        {"id": 7, "name": "cat", "isthing": 1},
        {"id": 9, "name": "<sky>", "isthing": 0},
    ]
    content = {"categories": categories, "annotations": [{"video_id": "v", "annotations": listed}]}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / f"{name}.json"


def test_panoptic_segments(tmp_path: Path) -> None:
    truth = [[300, 300, 0, 5], [300, 300, 5, 5]]
    found = [[1, 1, 1, 2], [2, 2, 2, 2]]
    gt = panoptic(tmp_path, "gt", truth, {300: 7, 5: 9})
    results = panoptic(tmp_path, "pred", found, {1: 7, 2: 9})
    made = vps_report(gt, results, score_panoptic(gt, results))
    (video,) = made["videos"]
    assert made["classNames"] == ["cat", "<sky>"]
    assert [one["label"] for one in video["truth"]] == ["<sky>", "cat"]
    assert states(video) == {"truth": ["ff", "fm"], "predictions": ["f.", "ff"]}
    assert [one["partner"] for one in video["predictions"]] == [1, 0]
    assert [row["name"] for row in made["classes"]["rows"]] == ["cat", "<sky>"]
    assert [row[0] for row in made["tables"][1]["rows"]] == ["all", "things", "stuff"]
    assert_explained(made)
    json.dumps(made, allow_nan=False)


def test_crowds_and_large_pictures() -> None:
    maps = np.zeros((2, 640, 1280), np.int32)
    maps[:, :320, :640] = 70000
    maps[1, 639, 1279] = 2  # a pixel that shrinking would lose
    segments = [Segment(2, "dot"), Segment(70000, "group", is_crowd=True)]
    truth = maps.copy()
    truth[:, 0, 0] = -1
    video = MapVideo("v", ["0", "1"], truth, maps, segments, segments)
    made = map_video_payload(video, FrameReader(None), Limits())
    assert (made["width"], made["height"]) == (320, 160)
    assert states(made)["truth"] == [".f", "ff"]
    assert made["truth"][0]["masks"] == [None, [320 * 160 - 1, 1]]
    assert made["truth"][1]["masks"][0][:3] == [0, 160, 160]
    assert values_in(truth) == [0, 2, 70000]


def test_nothing_is_annotated() -> None:
    maps = np.full((1, 2, 3), -1)
    video = MapVideo("v", ["0"], maps, np.ones((1, 2, 3), int), [], [Segment(1, "slot 1")])
    made: dict[str, Any] = map_video_payload(video, FrameReader(None), Limits())
    assert states(made) == {"truth": [], "predictions": ["."]}
