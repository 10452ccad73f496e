"""What the command writes opens in a real browser, offline, and says what was measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.report_browser.probes import CORNER, IS_PAINTED
from vidseg import rle

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[3]
LENGTH, HEIGHT, WIDTH = 3, 24, 32
Open = Callable[..., Any]


def box(left: int) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[6:18, left : left + 12] = True
    text = rle.to_text(rle.encode(mask))
    assert text is not None
    return text


def prediction(video: int, score: float, masks: list[Any]) -> dict[str, Any]:
    return {"video_id": video, "category_id": 1, "score": score, "segmentations": masks}


@pytest.fixture
def report(tmp_path: Path) -> tuple[Path, str]:
    """Two videos: what is in the first is found, in the second by another track in frame 1."""
    names = ["right", "wrong"]
    videos = [
        {"id": key, "length": LENGTH, "height": HEIGHT, "width": WIDTH,
         "file_names": [f"{name}/{frame}.jpg" for frame in range(LENGTH)]}
        for key, name in enumerate(names, 1)
    ]  # fmt: skip
    for name in (name for video in videos for name in video["file_names"]):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (200, 40, 40)).save(file)
    walk = [box(0), box(4), box(8)]
    truth = [
        {"id": key, "video_id": key, "category_id": 1, "iscrowd": 0, "segmentations": walk,
         "areas": [144] * LENGTH}
        for key in (1, 2)
    ]  # fmt: skip
    found = [
        prediction(1, 0.9, walk),
        prediction(2, 0.8, [walk[0], None, walk[2]]),
        prediction(2, 0.85, [box(20), walk[1], None]),
    ]
    categories = [{"id": 1, "name": "</script>"}]
    (tmp_path / "gt.json").write_text(
        json.dumps({"videos": videos, "categories": categories, "annotations": truth})
    )
    (tmp_path / "results.json").write_text(json.dumps(found))
    command = [sys.executable, str(CHECKOUT / "tools" / "evaluate.py"), "ytvis"]
    for option in ("gt", "results"):
        command += [f"--{option}", str(tmp_path / f"{option}.json")]
    command += ["--report", str(tmp_path / "report.html"), "--images", str(tmp_path / "images")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return tmp_path / "report.html", run.stdout


@pytest.mark.parametrize("width", [1280, 420])
def test_page_tells_what_was_printed(report: tuple[Path, str], open_file: Open, width: int) -> None:
    file, printed = report
    page = open_file(file, width)
    ap = re.search(r"^\| +AP \|.*\n\|[-:| ]+\n\| +([\d.]+) ", printed, re.MULTILINE)
    assert ap is not None
    assert 0 < float(ap[1]) < 100
    assert page.locator(".figure-value").first.inner_text() == f"{ap[1]}%"
    page.get_by_role("tab", name="Classes").click()
    assert page.locator("#panel-classes th.name").last.inner_text() == "</script>"
    page.get_by_role("tab", name="Videos").click()
    assert page.locator("#panel-videos tbody th").all_inner_texts() == ["wrong", "right"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_player_shows_frames_and_confusions(report: tuple[Path, str], open_file: Open) -> None:
    page = open_file(report[0], section="videos")
    page.get_by_role("button", name="wrong").click()
    labels = [bar.get_attribute("aria-label") for bar in page.locator(".states").all()]
    assert [label.split(". ")[1] for label in labels] == [
        "found in 2 frames, switched in 1 frame",
        "found in 2 frames",
        "switched in 1 frame, false in 1 frame",
    ]
    truth = page.locator("canvas").first
    page.wait_for_function(IS_PAINTED, arg=truth.element_handle())
    assert truth.evaluate(CORNER) == pytest.approx([200, 40, 40, 255], abs=6)
    page.keyboard.press("n")
    assert page.locator(".frame-count").inner_text() == "frame 1 · 2 of 3"
