"""Evaluators that score predictions of tracks beside, or instead of, AP."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_ytvis_evaluator import FRAMES, SIZE, make_gt, moving_box, predict
from vidseg import rle
from vidseg.config import get_cfg
from vidseg.data import DatasetCatalog
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.evaluation import (
    Evaluator,
    RegionBoundaryEvaluator,
    TrackingEvaluator,
    YTVISEvaluator,
    build_evaluator,
)
from vidseg.evaluation.base import headline_of
from vidseg.evaluation.group import EvaluatorGroup
from vidseg.evaluation.segment_files import score_region_boundary
from vidseg.evaluation.track_segments import score_tracks_as_segments

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"


@pytest.fixture
def boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of that name."""
    gt = tmp_path / "boxes.json"
    gt.write_text(json.dumps(make_gt()))
    known = SimpleNamespace(
        name="boxes",
        evaluator="ytvis",
        json_file=str(gt),
        image_root="",
        category_ids=[10, 20, 30, 40],
    )
    for name in ("metadata", "registered"):
        monkeypatch.setattr(DatasetCatalog, name, lambda name: known)
    return gt


def config(**keys: Any) -> Any:
    cfg = get_cfg()
    for key, value in keys.items():
        cfg.TEST[key] = value
    return cfg


def run(evaluator: Evaluator, *, shift: int = 1) -> dict[str, dict[str, float]]:
    evaluator.reset()
    for video in range(2):  # the third one is not predicted
        evaluator.process([{"video_id": video + 1}], [predict(video, shift=shift)])
    return evaluator.evaluate()


def test_one_prediction_is_scored_by_all(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = YTVISEvaluator.encode

    def count(self: Any, sample: Any, prediction: Any) -> Any:
        encoded.append(sample["video_id"])
        return encode(self, sample, prediction)

    monkeypatch.setattr(YTVISEvaluator, "encode", count)
    folder = tmp_path / "out"
    cfg = config(EXTRA_EVALUATORS=("tracking", "davis", "ytvis"))
    metrics = run(build_evaluator(cfg, "boxes", folder))
    assert encoded == [1, 2]  # kept once for all three
    assert list(metrics) == ["segm", "tracking", "davis"]
    written = json.loads((folder / "metrics.json").read_text())
    flat = {f"{task}/{name}": x for task, part in metrics.items() for name, x in part.items()}
    assert written == {name: None if math.isnan(x) else x for name, x in flat.items()}
    assert headline_of(cfg, "boxes")[-4:-2] == ("tracking/IDF1", "davis/J&F")
    assert (folder / "results.json").is_file()
    for name in ("tracking", "davis"):
        alone = config(EVALUATOR=name)
        assert run(build_evaluator(alone, "boxes", tmp_path / name))[name] == metrics[name]
        for file in ("metrics.json", "per_video.csv"):
            ours, other = (f.read_text() for f in (folder / name / file, tmp_path / name / file))
            assert ours == other
    rows = list(csv.DictReader((folder / "tracking" / "per_video.csv").open()))
    assert [float(row["MOTA"]) for row in rows] == [100, 100, 0]
    rows = list(csv.DictReader((folder / "tracking" / "per_class.csv").open()))
    assert [row["class"] for row in rows] == ["cat", "dog", "bird"]
    titles = [(one / "report.html").read_text() for one in (folder, folder / "tracking")]
    assert "<title>boxes: YouTube-VIS AP</title>" in titles[0]
    assert "<title>boxes: Tracking: HOTA, CLEAR and Identity</title>" in titles[1]


def test_names_and_figures_are_those_of_the_tool(boxes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    cfg = config(EXTRA_EVALUATORS=("tracking",))
    cfg.TEST.TRACKING.MIN_SCORE = 0.6  # leaves out the last of three
    run(build_evaluator(cfg, "boxes", folder))
    output = tmp_path / "metrics.json"
    files = ["--gt", boxes, "--results", folder / "results.json", "--output", output]
    flags = ["--min-score", "0.6"]
    subprocess.run([sys.executable, TOOL, "tracking", *files, *flags], check=True)
    figures = json.loads(output.read_text())
    assert json.loads((folder / "tracking" / "metrics.json").read_text()) == figures
    assert figures["tracking/CLR_Re"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 0) / 3)


def test_figures_of_segments_are_those_of_the_tool(boxes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    cfg = config(EXTRA_EVALUATORS=("davis",))
    cfg.TEST.DAVIS.MIN_SCORE = 0.6
    run(build_evaluator(cfg, "boxes", folder))
    output = tmp_path / "metrics.json"
    files = ["--gt", boxes, "--results", folder / "results.json", "--output", output]
    command = [sys.executable, TOOL, "davis", *files, "--min-score", "0.6"]
    subprocess.run(command, check=True)
    figures = json.loads(output.read_text())
    assert json.loads((folder / "davis" / "metrics.json").read_text()) == figures
    for wrong in (["--task", "semi-supervised"], ["--gt", tmp_path], ["--report", "x"]):
        done = subprocess.run([*command, *wrong], capture_output=True, text=True, check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "davis takes two json files, for the task unsupervised" in done.stderr
    folders = ["--gt", tmp_path, "--results", tmp_path]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--min-score is of use with json files alone" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": []}, "no video of the ground truth has an object"),
        ({"videos": [{"id": 1, "height": 24}]}, r"the ground truth, video 1: it has height, width"),
    ],
)
def test_files_of_tracks_that_cannot_be_scored(change: dict[str, Any], message: str) -> None:
    gt = make_gt(num_videos=1)
    if "videos" in change:
        gt["annotations"] = []
    with pytest.raises(DataError, match=message):
        score_tracks_as_segments({**gt, **change}, [])


def test_damaged_masks_are_refused() -> None:
    gt = make_gt(num_videos=1)
    damaged = [{"size": list(SIZE), "counts": "04"}] * FRAMES
    track = {"video_id": 1, "category_id": 10, "score": 1.0, "segmentations": damaged}
    with pytest.raises(DataError, match="the results: entry 0, video 1, frame 0: an RLE is damag"):
        score_tracks_as_segments(gt, [track])
    gt["annotations"][1]["segmentations"] = damaged
    with pytest.raises(DataError, match="the ground truth: annotation 1, video 1, frame 0: an RLE"):
        score_tracks_as_segments(gt, [])


def write_maps(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    for video, labels in maps.items():
        (folder / video).mkdir(parents=True)
        for frame, one in enumerate(labels):
            Image.fromarray(one.astype(np.uint8)).save(folder / video / f"{frame}.png")
    return folder


def test_region_and_boundary_are_those_of_label_maps(tmp_path: Path) -> None:
    truth, found = {}, {}
    for video in range(3):
        labels, segments = np.zeros((2, FRAMES, *SIZE))
        for track in range(3):
            labels[moving_box(video, track)] = track + 1
            if video < 2:
                segments[moving_box(video, track, 1)] = 7 - track
        truth[f"{video + 1}"], found[f"{video + 1}"] = labels, segments
    metrics, per_video = score_region_boundary(
        write_maps(tmp_path / "gt", truth), write_maps(tmp_path / "found", found)
    )
    figures = run(RegionBoundaryEvaluator(make_gt(), tmp_path))["davis"]
    assert list(figures) == list(metrics)
    assert figures == pytest.approx({name: 100 * value for name, value in metrics.items()})
    rows = list(csv.DictReader((tmp_path / "per_video.csv").open()))
    assert float(rows[0]["J"]) == pytest.approx(100 * per_video["1"]["J"], abs=1e-4)


def test_the_best_track_is_in_front_and_crowds_are_void(tmp_path: Path) -> None:
    gt = make_gt(num_videos=1, num_tracks=1)
    size = {"size": list(SIZE)}
    box = rle.to_text(rle.encode(moving_box(0, 0))[0])
    whole = {**size, "counts": rle.to_text(rle.encode(np.ones(SIZE, bool)))["counts"]}
    gt["annotations"].insert(
        0, {**gt["annotations"][0], "id": 9, "iscrowd": 1, "segmentations": [whole] * FRAMES}
    )
    gt["annotations"][1]["segmentations"] = [box] * FRAMES

    def score(*tracks: tuple[float, Any], **options: Any) -> float:
        evaluator = RegionBoundaryEvaluator(gt, tmp_path, **options)
        records = [{"score": s, "segmentations": [mask] * FRAMES} for s, mask in tracks]
        return evaluator.score({1: {"tracks": records, "num_dropped": 0}})["davis"]["J"]

    assert score((0.9, whole)) == 100  # the rest of it lies on the crowd
    assert score((0.5, box), (0.2, whole)) == 100
    assert score((0.5, box), (0.9, box)) == 100
    assert score((0.2, box), (0.9, whole), max_tracks=1, min_score=0.3) == 100
    assert score((0.2, box), min_score=0.3) == 0
    with pytest.raises(DataError, match=r"video 1: a mask has size \[2, 2\], the video \[24, 32\]"):
        score((0.9, {"size": [2, 2], "counts": "04"}))


def test_without_annotations_there_is_nothing_to_score(tmp_path: Path) -> None:
    gt = {**make_gt(), "annotations": None}
    for kind, task in ((TrackingEvaluator, "tracking"), (RegionBoundaryEvaluator, "davis")):
        assert run(kind(gt, tmp_path))[task] == {}
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_scored_together(boxes: Path, tmp_path: Path) -> None:
    class Bookkeeper(YTVISEvaluator):
        def process(self, samples: Any, predictions: Any) -> None:
            raise NotImplementedError

    members = {name: Bookkeeper(make_gt(), tmp_path) for name in ("bookkeeper", "other")}
    with pytest.raises(ConfigError, match="EXTRA_EVALUATORS: the evaluator 'bookkeeper' keeps"):
        EvaluatorGroup(members, tmp_path)
    with pytest.raises(UserError, match="'trackin' is not registered; nearest: tracking"):
        build_evaluator(config(EXTRA_EVALUATORS=("trackin",)), "boxes", tmp_path)
    cfg = config(EXTRA_EVALUATORS=("davis",))
    cfg.TEST.DAVIS.MAX_TRACKS = 0
    with pytest.raises(ConfigError, match=r"TEST\.DAVIS\.MAX_TRACKS is 0"):
        build_evaluator(cfg, "boxes", tmp_path)
