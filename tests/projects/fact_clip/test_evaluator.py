"""The evaluator: metrics of all branches over a split, and the files it leaves."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.projects.fact_clip.prediction_ground import (
    CLASSES,
    make_prediction,
    make_sample,
    match_text,
    segments,
)
from vidseg.config import load_config
from vidseg.data import Metadata, Records
from vidseg.data.catalog import Catalog
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.evaluation import ResultStore
from vidseg.evaluation.base import EVALUATOR_REGISTRY
from vidseg.projects.fact_clip.background import background_classes
from vidseg.projects.fact_clip.class_names import class_names
from vidseg.projects.fact_clip.evaluator import ActionSegmentationEvaluator
from vidseg.projects.fact_clip.metrics import count_video, pool, summary

TRUE = segments((0, 10), (1, 30), (2, 40), (0, 20))
WRONG = segments((0, 10), (1, 40), (3, 30), (0, 20))
NOISY = np.where(np.arange(100) % 7 == 0, 3, TRUE)
METRICS = ("Acc", "AccB", "Edit", "F1@10", "F1@25", "F1@50")


def evaluator(folder: Path, **changes: Any) -> ActionSegmentationEvaluator:
    return ActionSegmentationEvaluator(folder, classes=CLASSES, background=[0], **changes)


def evaluate(folder: Path, *pairs: tuple[dict[str, Any], Any], **changes: Any) -> Any:
    found = evaluator(folder, **changes)
    found.process(*zip(*pairs, strict=True))
    return found.evaluate()


def split() -> list[tuple[dict[str, Any], Any]]:
    other = segments((2, 33), (0, 10), (3, 7))
    return [
        (make_sample("b", TRUE, 100), make_prediction(WRONG, frame=NOISY)),
        (make_sample("a", other, 50, 2), make_prediction(other[::2], frame=np.full(25, 2))),
    ]


def test_every_branch_has_the_metrics_of_its_labels(tmp_path: Path) -> None:
    metrics = evaluate(tmp_path, *split())
    (_, first), (_, second) = split()
    truths = [TRUE, segments((2, 33), (0, 10), (3, 7))]
    for group, pairs in {
        "merged": [first.labels, second.labels],
        "frame_branch": [first.frame_labels, second.frame_labels],
    }.items():
        counts = [count_video(p, t, 4, [0]) for p, t in zip(pairs, truths, strict=True)]
        expected = summary(pool(counts, 4), [0])
        assert {name: metrics[group][name] for name in METRICS} == expected
    assert metrics["with_background"]["Acc"] == metrics["merged"]["AccB"]
    assert metrics["with_background"]["Edit"] != metrics["merged"]["Edit"]
    assert "zero_shot" not in metrics


def test_background_counts_if_it_is_asked_for(tmp_path: Path) -> None:
    usual = evaluate(tmp_path, *split())
    asked = evaluate(tmp_path, *split(), eval_bg=True)
    assert asked["merged"] == usual["with_background"]
    assert asked["without_background"] == usual["merged"]
    assert asked["merged"]["Acc"] == asked["merged"]["AccB"]


def test_classes_are_scored_one_by_one(tmp_path: Path) -> None:
    metrics = evaluate(tmp_path, *split())["per_class"]
    assert metrics["Acc-take bowl"] == 100
    assert metrics["Acc-pour milk"] == pytest.approx(100 * 33 / 73)
    with (tmp_path / "per_class.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert rows["background"]["F1@50"] == ""
    assert (rows["stir"]["true_segments"], rows["stir"]["predicted_segments"]) == ("1", "2")
    assert float(rows["stir"]["accuracy"]) == pytest.approx(100 * 6 / 7, abs=1e-3)
    assert float(rows["stir"]["precision"]) == pytest.approx(100 * 6 / 36, abs=1e-3)


def test_files_tell_of_every_video(tmp_path: Path) -> None:
    metrics = evaluate(tmp_path, *split())
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["merged/F1@50"] == metrics["merged"]["F1@50"]
    with (tmp_path / "per_video.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["row"]) for row in rows[:3]] == [
        ("a", "merged"),
        ("a", "frame_branch"),
        ("a", "action_branch"),
    ]
    for folder, suffix in (("segments", "csv"), ("timelines", "png")):
        assert {path.name for path in (tmp_path / folder).iterdir()} == {
            f"a.{suffix}",
            f"b.{suffix}",
        }
    report = (tmp_path / "report.md").read_text()
    assert "| pour milk | stir " in " ".join(report.split())


def test_labels_of_text_are_scored_beside_the_others(tmp_path: Path) -> None:
    names = ["background", "take bowl", "pour milk", "fry egg"]
    pairs = split()[:1]
    pairs[0][1].zero_shot = match_text(TRUE, names, [True, True, False, False])
    metrics = evaluate(tmp_path, *pairs)["zero_shot"]
    assert metrics["Acc"] == metrics["H"] == 100
    pairs[0][1].zero_shot = match_text(WRONG, names, [True, True, False, False])
    metrics = evaluate(tmp_path, *pairs)["zero_shot"]
    assert metrics["Acc"] == pytest.approx(100 * 30 / 70)  # a name that the set lacks is wrong
    assert (metrics["seen_closed"], metrics["unseen_closed"], metrics["H_closed"]) == (100, 0, 0)
    report = (tmp_path / "report.md").read_text()
    assert "gamma of the model" in report
    assert "projection that was never trained" in report


def test_videos_without_labels_leave_pictures_and_segments(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = evaluate(tmp_path, (make_sample("a", None, 100), make_prediction(TRUE)))
    assert metrics == {"merged": {}}
    assert "no video has labels" in caplog.text
    assert (tmp_path / "segments" / "a.csv").is_file()
    assert (tmp_path / "timelines" / "a.png").is_file()
    assert not (tmp_path / "metrics.json").exists()


def test_only_background_and_no_token_kept(tmp_path: Path) -> None:
    truth = np.zeros(20, dtype=np.int64)
    prediction = make_prediction(truth, action=np.full(20, -1))
    metrics = evaluate(tmp_path, (make_sample("a", truth, 20), prediction))
    assert metrics["merged"]["AccB"] == 100
    assert metrics["action_branch"]["AccB"] == 0
    assert math.isnan(metrics["merged"]["Acc"])
    assert json.loads((tmp_path / "metrics.json").read_text())["merged/Acc"] is None


@pytest.mark.parametrize(("limit", "drawn"), [(-1, 2), (0, 0), (1, 1)])
def test_number_of_pictures(tmp_path: Path, limit: int, drawn: int) -> None:
    evaluate(tmp_path, *split(), num_pictures=limit)
    assert len(list(tmp_path.glob("timelines/*.png"))) == drawn


def test_an_evaluation_that_was_stopped_goes_on(tmp_path: Path) -> None:
    whole = evaluate(tmp_path / "whole", *split())
    pairs = split()
    for part in (pairs[:1], pairs[1:]):
        found = evaluator(tmp_path / "parts", num_pictures=1)
        found.results = ResultStore(tmp_path / "store")
        found.results.open({"model": 1})
        found.process(*zip(*part, strict=True))
    assert repr(found.evaluate()) == repr(whole)  # nan differs from itself
    assert [path.name for path in (tmp_path / "parts" / "timelines").iterdir()] == ["b.png"]


def test_a_model_that_diverged_is_told_of(tmp_path: Path) -> None:
    sample, prediction = split()[0]
    prediction.probabilities[3, 1] = float("nan")
    with pytest.raises(UserError, match="video b are no numbers; its weights have diverged"):
        evaluator(tmp_path).process([sample], [prediction])


def test_what_config_and_data_set_say(tmp_path: Path) -> None:
    cfg = load_config(None, ["bg_class", "[stir, 0]"], ["fact_clip"])
    metadata = Metadata("kitchen", classes=CLASSES)
    cls = EVALUATOR_REGISTRY.get("action_segmentation")
    assert cls.from_config(cfg, metadata, tmp_path)["background"] == [0, 3]
    cfg.TEST.ACTIONS.NUM_PICTURES = -2
    with pytest.raises(ConfigError, match=r"TEST\.ACTIONS\.NUM_PICTURES is -2"):
        cls.from_config(cfg, metadata, tmp_path)


def test_a_set_without_classes_has_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog()
    catalog.register("kitchen", Records, classes=CLASSES, category_ids=[1, 2, 3, 4])
    monkeypatch.setattr("vidseg.projects.fact_clip.class_names.DatasetCatalog", catalog)
    cfg = load_config(None, ["DATASETS.TRAIN", "[kitchen]"], ["fact_clip"])
    assert class_names(cfg, Metadata("videos")) == CLASSES
    assert class_names(cfg, Metadata("videos", classes=["a"])) == ["a"]
    other = [*CLASSES[:1], *reversed(CLASSES[1:])]
    with pytest.raises(DataError, match=rf"videos: class 1 is '{other[1]}', but '{CLASSES[1]}' in"):
        class_names(cfg, Metadata("videos", classes=other))
    cfg.DATASETS.TRAIN = ["not on this machine"]
    assert class_names(cfg, Metadata("videos")) == []


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (["stirr"], "no class is called 'stirr'; nearest: stir"),
        ([4], "4 is not one of the 4 classes"),
        (3, r"write a list: \[3\]"),
    ],
)
def test_background_that_is_no_class(wrong: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        background_classes(wrong, CLASSES)


def test_background_is_class_0_unless_said_otherwise() -> None:
    assert background_classes(None, CLASSES) == [0]
    assert background_classes([], CLASSES) == []
