"""The evaluator on a generated data set: files, report, ranks."""

import csv
import json
import logging
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vidseg import rle
from vidseg.config import get_cfg
from vidseg.errors import DataError, UserError
from vidseg.evaluation import (
    EVALUATOR_REGISTRY,
    YTVISEvaluator,
    build_evaluator,
    evaluate_ytvis,
    score_ytvis,
)
from vidseg.evaluation.report import class_table, format_scores, metric_lines, summary_table
from vidseg.structures import VideoInstances

SIZE = (24, 32)
FRAMES = 4


def moving_box(video: int, track: int, shift: int = 0) -> np.ndarray:
    masks = np.zeros((FRAMES, *SIZE), bool)
    for frame, mask in enumerate(masks):
        left = 2 * frame + 3 * video + shift
        mask[8 * track : 8 * track + 7, left : left + 9] = True
    return masks


def make_gt(*, num_videos: int = 3, num_tracks: int = 3) -> dict[str, Any]:
    annotations = []
    for video in range(num_videos):
        for track in range(num_tracks):
            masks = moving_box(video, track)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": video + 1,
                    "category_id": 10 * (track + 1),
                    "iscrowd": 0,
                    "segmentations": [rle.to_text(one) for one in rle.encode(masks)],
                    "areas": masks.sum(axis=(1, 2)).tolist(),
                    "bboxes": [],
                }
            )
    sizes = {"height": SIZE[0], "width": SIZE[1], "length": FRAMES, "file_names": [""] * FRAMES}
    names = {10: "cat", 20: "dog", 30: "bird", 40: "fish"}
    return {
        "videos": [{"id": video + 1, **sizes} for video in range(num_videos)],
        "categories": [{"id": key, "name": name} for key, name in names.items()],
        "annotations": annotations,
    }


def predict(video: int, *, shift: int = 0, labels: tuple[int, ...] = (0, 1, 2)) -> VideoInstances:
    tracks = [rle.encode(moving_box(video, label, shift)) for label in labels]
    scores = torch.linspace(0.9, 0.5, len(labels))
    ids = torch.arange(len(labels))
    return VideoInstances(scores, torch.tensor(labels), ids, tracks, SIZE, list(range(FRAMES)))


def run(evaluator: YTVISEvaluator, predictions: dict[int, VideoInstances]) -> dict[str, float]:
    evaluator.reset()
    for video, prediction in predictions.items():
        evaluator.process([{"video_id": video + 1}], [prediction])
    return evaluator.evaluate()["segm"]


def test_perfect_predictions_leave_all_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "inference" / "boxes"
    evaluator = YTVISEvaluator(make_gt(), folder, category_ids=[10, 20, 30, 40])
    with caplog.at_level(logging.INFO):
        metrics = run(evaluator, {video: predict(video) for video in range(3)})
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["AP-dog"] == pytest.approx(100)
    assert math.isnan(metrics["AP-fish"])
    assert "Average Precision (AP) @[ IoU=0.50:0.95" in caplog.text
    assert "not predicted" not in caplog.text

    written = json.loads((folder / "metrics.json").read_text())
    assert written["segm/AP"] == metrics["AP"]
    assert written["segm/AP-fish"] is None
    records = json.loads((folder / "results.json").read_text())
    assert len(records) == 9
    with zipfile.ZipFile(folder / "results.zip") as archive:
        assert archive.namelist() == ["results.json"]
        assert json.loads(archive.read("results.json")) == records
    rows = list(csv.DictReader((folder / "per_class.csv").open()))
    assert [row["class"] for row in rows] == ["cat", "dog", "bird", "fish"]
    assert (rows[0]["AP"], rows[3]["AP"]) == ("100.0000", "")
    assert not list(folder.glob(".*")), "temporary files are gone"
    # the written file scores as the evaluator did
    from_file = evaluate_ytvis(make_gt(), folder / "results.json")
    assert 100 * from_file["AP"] == metrics["AP"]


def test_category_ids_come_from_the_file_if_nobody_gives_them(tmp_path: Path) -> None:
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(make_gt()))
    metrics = run(YTVISEvaluator(path, tmp_path), {video: predict(video) for video in range(3)})
    assert metrics["AP"] == pytest.approx(100)


def test_worse_predictions_score_less_and_reset_forgets(tmp_path: Path) -> None:
    evaluator = YTVISEvaluator(make_gt(), tmp_path)
    shifted = run(evaluator, {video: predict(video, shift=1) for video in range(3)})
    assert 0 < shifted["AP"] < 100
    assert shifted["AP50"] == pytest.approx(100)
    assert run(evaluator, {video: predict(video) for video in range(3)})["AP"] > 99.9


def test_a_video_that_comes_twice_counts_once(tmp_path: Path) -> None:
    evaluator = YTVISEvaluator(make_gt(), tmp_path)
    samples = [{"video_id": 1}, {"video_id": 2}, {"video_id": 3}, {"video_id": 1}]
    evaluator.process(samples, [predict(0), predict(1), predict(2), predict(0)])
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)
    assert len(json.loads((tmp_path / "results.json").read_text())) == 9


def test_classes_that_the_data_set_lacks_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = YTVISEvaluator(make_gt(), tmp_path, dataset_name="boxes")
    plain = run(evaluator, {video: predict(video) for video in range(3)})
    assert "dropped" not in caplog.text
    surplus = {video: predict(video, labels=(0, 1, 2, 3, 4, 9)) for video in range(3)}
    for prediction in surplus.values():
        prediction.labels[3] = 7
        prediction.scores[:3] = torch.tensor([0.9, 0.7, 0.5])
    metrics = run(evaluator, surplus)
    assert caplog.text.count("9 predicted tracks were dropped: boxes has 4 classes") == 1
    assert "MODEL.SEM_SEG_HEAD.NUM_CLASSES" in caplog.text
    np.testing.assert_equal(metrics, plain)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_the_fault_of_the_model(
    tmp_path: Path, score: float
) -> None:
    evaluator = YTVISEvaluator(make_gt(), tmp_path)
    prediction = predict(1)
    prediction.scores[1] = score
    with pytest.raises(UserError, match="a track of video 2 a score that is no number") as caught:
        evaluator.process([{"video_id": 2}], [prediction])
    assert not isinstance(caught.value, DataError)  # which would stand for a damaged video
    assert not evaluator.results


def test_missing_videos_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = run(YTVISEvaluator(make_gt(), tmp_path), {1: predict(1)})
    assert (
        "2 of 3 videos of the data set were not predicted and count as empty: 1, 3" in caplog.text
    )
    assert metrics["AR100"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("empty", [True, False])
def test_nothing_found_is_zero(empty: bool, tmp_path: Path) -> None:
    evaluator = YTVISEvaluator(make_gt(), tmp_path)
    none = VideoInstances.empty(SIZE, range(FRAMES))
    metrics = run(evaluator, {video: none for video in range(3)} if empty else {})
    assert metrics["AP"] == 0
    assert json.loads((tmp_path / "results.json").read_text()) == []


@pytest.mark.parametrize("annotations", [None, "missing", []])
def test_a_test_split_gets_its_submission(
    annotations: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gt = {**make_gt(), "annotations": annotations}
    if annotations == "missing":
        del gt["annotations"]
    evaluator = YTVISEvaluator(gt, tmp_path, dataset_name="boxes_test")
    assert run(evaluator, {video: predict(video) for video in range(3)}) == {}
    assert "boxes_test has no annotations, so there is nothing to score against" in caplog.text
    assert (tmp_path / "results.zip").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_occlusion_levels_are_added_where_annotated(tmp_path: Path) -> None:
    gt = make_gt()
    for annotation in gt["annotations"]:
        annotation["occlusion"] = ["no_occlusion"] * FRAMES
    metrics = run(YTVISEvaluator(gt, tmp_path), {video: predict(video) for video in range(3)})
    assert metrics["APso"] == pytest.approx(100)
    assert math.isnan(metrics["APho"])
    del gt["annotations"][-1]["occlusion"]
    metrics = run(YTVISEvaluator(gt, tmp_path), {video: predict(video) for video in range(3)})
    assert metrics["AP"] == pytest.approx(100)
    assert "APso" not in metrics


def test_the_report_has_its_lines_and_tables() -> None:
    results = predict(0).to_results(1, [10, 20, 30])
    plain = score_ytvis(make_gt(num_videos=1), results)
    lines = metric_lines(plain)
    assert len(lines) == 12
    assert lines[0].endswith("| area=   all | maxDets=100 ] = 1.000")
    assert lines[5].endswith("= nan")
    assert lines[6].startswith(
        "Average Recall    (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1"
    )
    assert summary_table(plain).splitlines()[2].startswith("| 100.00 |")
    table = class_table(plain).splitlines()
    assert len(table) == 4, "four classes, three in a row"
    assert len(set(map(len, table))) == 1
    assert "fish" in table[3]
    assert "nan" in table[3]
    assert class_table(plain) in format_scores(plain)
    merged = score_ytvis(make_gt(num_videos=1), results, class_agnostic=True)
    assert "all classes" not in format_scores(merged)


def test_the_data_set_decides_on_the_evaluator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidseg.data import DatasetCatalog

    gt = tmp_path / "boxes.json"
    gt.write_text(json.dumps(make_gt()))
    metadata = SimpleNamespace(
        name="boxes",
        evaluator="ytvis",
        json_file=str(gt),
        category_ids=[10, 20, 30, 40],
        image_root="",
    )
    monkeypatch.setattr(DatasetCatalog, "metadata", lambda name: metadata)
    cfg = get_cfg()
    evaluator = build_evaluator(cfg, "boxes", tmp_path / "out")
    assert isinstance(evaluator, EVALUATOR_REGISTRY.get("ytvis"))
    assert run(evaluator, {video: predict(video) for video in range(3)})["AP"] == pytest.approx(100)
    metadata.evaluator = "ytvos"
    with pytest.raises(UserError, match="EVALUATOR 'ytvos' is not registered; nearest: ytvis"):
        build_evaluator(cfg, "boxes", tmp_path / "out")
    metadata.evaluator = ""
    with pytest.raises(UserError, match=r"^boxes cannot be scored: .* DATASETS\.TEST, or an .*"):
        build_evaluator(cfg, "boxes", tmp_path / "out")
    cfg.TEST.EVALUATOR = "ytvis"  # has the last word
    assert isinstance(
        build_evaluator(cfg, "boxes", tmp_path / "out"), EVALUATOR_REGISTRY.get("ytvis")
    )


RANK_PROGRAM = """
import json, sys
from pathlib import Path
import torch.distributed as dist
from tests.evaluation.test_ytvis_evaluator import YTVISEvaluator, make_gt, predict
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
evaluator = YTVISEvaluator(make_gt(), folder / "out")
for video in ((0, 1), (2, 0))[rank]:  # video 0 pads the share of rank 1
    evaluator.process([{"video_id": video + 1}], [predict(video)])
print(json.dumps(evaluator.evaluate()["segm"]["AP"]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_put_their_videos_together(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_PROGRAM, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert [float(output) for output in outputs] == [pytest.approx(100)] * 2
    records = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sorted(one["video_id"] for one in records) == [1] * 3 + [2] * 3 + [3] * 3


def test_a_report_lies_beside_the_metrics(tmp_path: Path) -> None:
    Image.new("RGB", (SIZE[1], SIZE[0])).save(tmp_path / "0.png")
    gt = make_gt()
    for video in gt["videos"]:
        video["file_names"] = ["0.png"] * FRAMES
    evaluator = YTVISEvaluator(gt, tmp_path, dataset_name="boxes", report_videos=2, images=tmp_path)
    predictions = {video: predict(video, shift=3 * (video == 2)) for video in range(3)}
    metrics = run(evaluator, predictions)
    page = (tmp_path / "report.html").read_text()
    text = re.search(r'id="payload">(.*?)</script>', page)
    assert text is not None
    payload = json.loads(text[1])
    assert payload["title"] == "boxes: YouTube-VIS AP"
    assert payload["figures"][0]["value"] == pytest.approx(metrics["AP"], abs=1e-4)
    assert [video["id"] for video in payload["videos"]] == ["3", "1"]  # the worst ones
    assert payload["videos"][0]["frames"][0]["image"]
    cfg = get_cfg()
    cfg.TEST.REPORT_VIDEOS = 0
    metadata = SimpleNamespace(json_file=gt, category_ids=[], name="boxes", image_root="")
    (tmp_path / "report.html").unlink()
    run(YTVISEvaluator(**YTVISEvaluator.from_config(cfg, metadata, tmp_path)), predictions)  # type: ignore[arg-type]
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("strange")])
def test_a_report_that_fails_costs_nothing_but_itself(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    predictions = {video: predict(video) for video in range(3)}
    evaluator = YTVISEvaluator(make_gt(), tmp_path, dataset_name="boxes", report_videos=2)
    metrics = run(evaluator, predictions)
    (tmp_path / "metrics.json").unlink()
    monkeypatch.setattr("vidseg.evaluation.html_report.ytvis_report", fail)
    assert run(evaluator, predictions) == pytest.approx(metrics, nan_ok=True)
    assert (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "report.html").exists(), "it would be that of another evaluation"
    assert f"no report.html of boxes was written: {error!r}" in caplog.text
