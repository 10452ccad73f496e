"""Payloads of reports on files of tracks: numbers, ranking, player, limits."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidseg import rle
from vidseg.errors import DataError
from vidseg.evaluation import score_ytvis
from vidseg.evaluation.html_report import (
    Limits,
    Payload,
    payload,
    tracking_report,
    write_report,
    ytvis_report,
)
from vidseg.evaluation.html_report.frames import FrameReader
from vidseg.evaluation.tracking import score_tracking

CASES = Path(__file__).parents[2] / "golden" / "ytvis_eval"
HEIGHT, WIDTH = 12, 16


def box(left: int, top: int = 0, side: int = 6) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + side, left : left + side] = True
    text = rle.to_text(rle.encode(mask))
    assert text is not None
    return text


def annotated(*videos: list[list[Any]], names: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
    """Gives annotations from tracks by video: a class, then its masks."""
    tracks = [(video, track) for video, of in enumerate(videos, 1) for track in of]
    return {
        "videos": [
            {
                "id": video,
                "width": WIDTH,
                "height": HEIGHT,
                "length": 2,
                "file_names": [f"v{video}/{frame}.jpg" for frame in range(2)],
            }
            for video in range(1, len(videos) + 1)
        ],
        "categories": [{"id": key, "name": name} for key, name in enumerate(names, 1)],
        "annotations": [
            {
                "id": number,
                "video_id": video,
                "category_id": category,
                "iscrowd": 0,
                "areas": [36 if mask else None for mask in masks],
                "segmentations": masks,
            }
            for number, (video, (category, *masks)) in enumerate(tracks, 1)
        ],
    }


def predicted(video: int, score: float, category: int, *masks: Any) -> dict[str, Any]:
    return {
        "video_id": video, "category_id": category, "score": score, "segmentations": list(masks)
    }  # fmt: skip


def report(gt: Any, results: Any, **options: Any) -> Payload:
    occlusion = options.pop("occlusion", False)
    agnostic = options.get("class_agnostic", False)
    scores = score_ytvis(gt, results, occlusion=occlusion, class_agnostic=agnostic)
    return ytvis_report(gt, results, scores, **options)


@pytest.fixture(scope="module")
def four() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Four videos: found, half found, empty, not found."""
    track = [1, box(0), box(1)]
    gt = annotated([track], [track, [2, box(8), box(8)]], [], [track])
    results = [
        predicted(1, 0.9, 1, box(0), box(1)),
        predicted(2, 0.8, 1, box(0), box(1)),
        predicted(3, 0.7, 1, box(0), None),
        predicted(4, 0.6, 1, box(8), box(8)),
        predicted(1, 0.1, 2, box(4, 6), None),
    ]
    return gt, results


@pytest.mark.parametrize("case", ["random_small", "fuzz_01", "category_without_gt"])
def test_curves_are_those_that_ap_is_the_mean_of(case: str) -> None:
    files = [CASES / case / f"{name}.json" for name in ("gt", "results")]
    scores = score_ytvis(*files)
    made = ytvis_report(*files, scores)
    found = {(curve["name"], curve["iou"]): curve for curve in made["curves"]}
    values = {row["name"]: row["values"][:3] for row in made["classes"]["rows"]}
    values["all classes"] = [figure["value"] for figure in made["figures"][:3]]
    compared = 0
    for name, figures in values.items():
        for iou, figure in zip(("0.50:0.95", "0.50", "0.75"), figures, strict=True):
            if figure is None:
                assert (name, iou) not in found
                continue
            curve = found[name, iou]
            assert len(curve["precision"]) == 101
            assert np.mean(curve["precision"]) == pytest.approx(figure, abs=2e-4)
            compared += 1
    assert compared == len(found) > 3
    expected = json.loads((CASES / case / "expected.json").read_text())["report_x100"]
    assert values["all classes"][1] == pytest.approx(expected["AP50"], abs=1e-4)


def test_scores_of_a_curve_end_where_recall_ends(four: Any) -> None:
    curves = {(curve["name"], curve["iou"]): curve for curve in report(*four)["curves"]}
    curve = curves["cat", "0.50"]  # two of three found
    assert curve["scores"][:34] == [0.9] * 34
    assert curve["scores"][34:] == [0.8] * 33 + [None] * 34
    assert curve["precision"][66:68] == [100, 0]
    assert curves["all classes", "0.50"]["scores"] is curves["cat", "0.50:0.95"]["scores"] is None


@pytest.mark.parametrize("case", ["random_small", "ovis_occlusion", "crowd", "fuzz_02"])
def test_a_video_is_ranked_by_its_own_ap(case: str) -> None:
    gt, results = (
        json.loads((CASES / case / f"{name}.json").read_text()) for name in ("gt", "results")
    )
    occlusion = case.startswith("ovis")
    per_video = score_ytvis(gt, results, occlusion=occlusion).per_video()
    assert list(per_video) == sorted(video["id"] for video in gt["videos"])
    for video_id, found in per_video.items():
        alone = dict(gt, videos=[one for one in gt["videos"] if one["id"] == video_id])
        alone["annotations"] = [one for one in gt["annotations"] if one["video_id"] == video_id]
        mine = [one for one in results if one["video_id"] == video_id]
        expected = score_ytvis(alone, mine, occlusion=occlusion).summary()
        assert found == pytest.approx({key: expected[key] for key in found}, nan_ok=True, abs=1e-12)


def test_the_worst_video_comes_first_and_the_one_without_objects_last(four: Any) -> None:
    made = report(*four)
    rows = {row["name"]: row for row in made["ranking"]["rows"]}
    assert list(rows) == ["v4", "v2", "v1", "v3"]
    columns = made["ranking"]["columns"]
    told = {name: dict(zip(columns, row["values"], strict=True)) for name, row in rows.items()}
    assert [told[name]["AP"] for name in rows] == [0, 50, 100, None]
    assert (told["v4"]["missed"], told["v4"]["false"], told["v2"]["missed"]) == (2, 0, 2)
    assert [made["videos"][row["video"]]["name"] for row in rows.values()] == list(rows)


def test_among_equals_the_more_confused_comes_first() -> None:
    rows = {
        "a": {"AP": 0.5, "missed": 1.0},
        "b": {"AP": 0.5, "missed": 3.0},
        "c": {"AP": 0.5, "missed": 3.0},
        "d": {"AP": math.nan, "missed": 9.0},
        "e": {"AP": 0.0, "missed": 0.0},
    }
    made = payload.ranking(rows, ["AP", "missed"], plain=["missed"])
    assert [row["id"] for row in made["rows"]] == list("ebcad")
    assert made["rows"][-1]["values"] == [None, 9]


def test_predictions_below_the_score_of_the_best_f1_are_left_out_and_named(four: Any) -> None:
    made = report(*four)
    assert [len(video["predictions"]) for video in made["videos"]] == [0, 1, 1, 0]
    assert "score of 0.8 at least" in made["notes"][0]
    assert "3 of 5" in made["notes"][0]
    rows = {row["name"]: row["values"] for row in made["classes"]["rows"]}
    assert (rows["cat"][-2:], rows["dog"][-2:]) == ([3, 4], [1, 1])
    gt, results = four
    made = report(gt, results[2:4])  # no hit: all are looked at
    assert sum(len(video["predictions"]) for video in made["videos"]) == 2


@pytest.mark.parametrize(
    ("truths", "scores", "least"),
    [
        ("ABC", "A9 x8 B7 x6 x5 x4", 0.7),  # 2/5, 4/6: the third object is never found
        ("AB", "A9 x8 x7 x6 x5 B4", 0.9),  # 2/3 is better than 4/8
        ("AB", "A9 B5 x5", 0.5),  # equal scores come together: 4/5
        ("AB", "A9 B5 x5 x5 x5 x5", 0.9),  # 2/3 is better than 4/8
        ("AB", "x9 x8 x7", 0.8),  # no hit: as many as there are objects
        ("AB", "", -math.inf),
    ],
)
def test_score_of_the_best_f1(truths: str, scores: str, least: float) -> None:
    places = {"A": box(0), "B": box(6), "C": box(10, 6), "x": box(3, 5)}
    gt = annotated([[1, places[one], places[one]] for one in truths])
    results = [
        predicted(1, int(one[1]) / 10, 1, places[one[0]], places[one[0]]) for one in scores.split()
    ]
    assert score_ytvis(gt, results).matched.best_score() == least


def test_player(four: Any) -> None:
    gt, results = four
    video = report(gt, results)["videos"][1]
    assert (video["width"], video["height"], video["length"]) == (WIDTH, HEIGHT, 2)
    assert [frame["index"] for frame in video["frames"]] == [0, 1]
    truth, found = video["truth"], video["predictions"]
    assert [(one["label"], one["states"]) for one in truth] == [("cat", "ff"), ("dog", "mm")]
    assert (found[0]["partner"], found[0]["score"], found[0]["states"]) == (0, 0.8, "ff")
    assert found[0]["id"] == "1"  # its place in the results
    mask = np.repeat(np.arange(len(runs := truth[1]["masks"][0])) % 2, runs)
    assert (mask.reshape(HEIGHT, WIDTH) == rle.decode(rle.from_text(box(8)))).all()


def test_no_more_videos_and_frames_than_asked_for(four: Any) -> None:
    made = report(*four, limits=Limits(videos=2, frames=1))
    assert [video["name"] for video in made["videos"]] == ["v4", "v2"]
    assert [row["video"] for row in made["ranking"]["rows"]] == [0, 1, None, None]
    assert all(len(video["frames"]) == 1 < video["length"] for video in made["videos"])
    assert made["videos"][1]["truth"][0]["states"] == "ff"  # of all frames
    assert any("2 of 4 videos" in note for note in made["notes"])
    assert any("1 frame" in note for note in made["notes"])


def test_frames_are_spread_evenly() -> None:
    assert Limits(frames=3).frames_of(9) == [0, 4, 8]
    assert Limits(frames=3).frames_of(2) == [0, 1]
    assert Limits(frames=1).frames_of(9) == [4]
    assert Limits(frames=3).frames_of(0) == []


def test_the_page_is_bounded(four: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_BYTES", 900)
    made = report(*four)
    assert len(json.dumps(made["videos"])) < 1100
    assert 0 < len(made["videos"]) < 4
    assert any("too large" in note for note in made["notes"])


def test_pictures_are_shrunk_and_missing_ones_named_once(
    four: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gt, results = four
    gt = json.loads(json.dumps(gt))
    for video in gt["videos"]:
        video.update(width=640, height=480)
    (tmp_path / "v4").mkdir()
    Image.new("RGB", (640, 480), (200, 30, 30)).save(tmp_path / "v4" / "0.jpg")
    (tmp_path / "v4" / "1.jpg").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        made = report(gt, results, images=tmp_path)
    worst, *others = made["videos"]
    assert (worst["width"], worst["height"]) == (320, 240)
    first, second = worst["frames"]
    assert first["image"].startswith("data:image/jpeg;base64,")
    assert second["image"] is None
    assert all(frame["image"] is None for video in others for frame in video["frames"])
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert warnings[0].startswith("7 frames are shown without one: ")
    assert f"{tmp_path / 'v4' / '1.jpg'} cannot be read" in warnings[0]
    assert made["notes"][-1] in warnings[0]
    assert not any(frame["image"] for frame in report(gt, results)["videos"][0]["frames"])


def test_tracking_is_ranked_by_hota_and_counts_what_clear_counts() -> None:
    files = [CASES / "random_small" / f"{name}.json" for name in ("gt", "results")]
    scores = score_tracking(*files, min_score=0.3)
    made = tracking_report(*files, scores, min_score=0.3)
    columns = made["ranking"]["columns"]
    hota = [row["values"][0] for row in made["ranking"]["rows"]]
    assert columns[0] == "HOTA"
    assert hota == sorted(hota)
    for row in made["ranking"]["rows"]:
        told = dict(zip(columns, row["values"], strict=True))
        clear = scores.per_video[int(row["id"])]
        assert told["IDSW"] == clear["IDSW"]
        assert (told["missed"], told["false"]) == (clear["CLR_FN"], clear["CLR_FP"])
        assert told["HOTA"] == pytest.approx(100 * clear["HOTA"], abs=1e-4)
    assert ["least score", "0.3"] in made["facts"]
    assert made["figures"][0]["name"] == "HOTA"


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir() if path.is_dir()))
def test_whatever_can_be_scored_can_be_shown(case: str) -> None:
    files = [CASES / case / f"{name}.json" for name in ("gt", "results")]
    try:
        scores = score_ytvis(*files)
    except DataError:
        return
    made = ytvis_report(*files, scores)
    json.dumps(made, allow_nan=False)
    assert len(made["ranking"]["rows"]) == len(json.loads(files[0].read_text())["videos"])
    for video in made["videos"]:
        for track in [*video["truth"], *video["predictions"]]:
            assert len(track["states"]) == video["length"]
            assert len(track["masks"]) == len(video["frames"])
            sums = {sum(mask) for mask in track["masks"] if mask is not None}
            assert sums <= {video["width"] * video["height"]}


def test_occlusion_levels_and_merged_classes(four: Any) -> None:
    files = [CASES / "ovis_occlusion" / f"{name}.json" for name in ("gt", "results")]
    made = report(*files, occlusion=True)
    assert made["metric"] == "ovis"
    assert [one["name"] for one in made["figures"]][-3:] == ["APso", "APmo", "APho"]
    gt, results = four
    made = report(gt, [{**one, "category_id": 2} for one in results], class_agnostic=True)
    assert [row["name"] for row in made["classes"]["rows"]] == ["all classes"]
    assert {curve["name"] for curve in made["curves"]} == {"all classes"}
    assert len(made["curves"]) == 3
    assert made["videos"][1]["truth"][0]["states"] == "ff"  # found by another class


def test_the_file_is_whole_and_names_stay_text(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script> \"'&\u2028 ünï\U0001f42c"
    gt = annotated([[1, box(0), None]], names=(name,))
    gt["videos"][0]["file_names"] = [f"{name}/0.jpg", f"{name}/1.jpg"]
    made = report(gt, [predicted(1, 0.5, 1, box(0), None)])
    write_report(tmp_path / "new" / "report.html", made)
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    start = page.index(">", page.index('id="payload"')) + 1
    text = page[start : page.index("</script>", start)]
    assert json.loads(text)["classes"]["rows"][0]["name"] == name
    assert "alert(1)</script>" not in page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_report(tmp_path / "file" / "report.html", made)


def test_torch_is_not_needed() -> None:
    code = "import sys, vidseg.evaluation.html_report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_picture_of_too_many_pixels_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert FrameReader(tmp_path).read("huge.png", 10, 10) is None
