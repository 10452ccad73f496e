"""The evaluator over a split: files, baselines, alignment, and clips that are odd."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.projects.persistence.scoring_ground import Clip, T, make_clip
from vidseg.config import load_config
from vidseg.engine.evaluate import flatten
from vidseg.errors import UserError
from vidseg.evaluation import ResultStore
from vidseg.evaluation.base import EVALUATOR_REGISTRY
from vidseg.projects.persistence.evaluator import ObjectPersistenceEvaluator

Settings = dict[str, Any]


def evaluate(folder: Path, clips: list[Clip], **settings: Any) -> dict[str, float]:
    evaluator = ObjectPersistenceEvaluator(folder, **{"num_resamples": 200, **settings})
    for sample, prediction in clips:
        evaluator.process([sample], [prediction])
    return flatten(evaluator.evaluate())


@pytest.fixture
def clips() -> list[Clip]:
    return [make_clip(n, error=0.1, background=1, attention="right") for n in range(40)]


def test_is_found_by_name_and_reads_its_keys(tmp_path: Path) -> None:
    cfg = load_config(None, [], ["persistence"])
    cfg.MODEL.PERSISTENCE.TRACKER.MIN_PRESENCE = 0.5
    cfg.TEST.PERSISTENCE.NUM_PICTURES, cfg.TEST.PERSISTENCE.BOOTSTRAP = 3, 7
    found = EVALUATOR_REGISTRY.get("object_persistence")
    assert found is ObjectPersistenceEvaluator
    metadata: Any = types.SimpleNamespace(name="some")
    assert found.from_config(cfg, metadata, tmp_path) == {
        "output_dir": tmp_path,
        "min_presence": 0.5,
        "num_pictures": 3,
        "num_resamples": 7,
        "dataset_name": "some",
    }


def test_a_right_model_and_what_it_beats(tmp_path: Path) -> None:
    found = evaluate(tmp_path, [make_clip(n, background=1, attention="right") for n in range(40)])
    assert found["tokens/balanced_accuracy"] == found["tokens/accuracy"] == 100
    assert found["tokens/AUROC"] == found["objects/accuracy"] == 100
    assert found["tokens/num_clips"] == 40
    assert found["objects/num_objects"] == 160
    assert 90 < found["baselines/tracker"] < 100
    assert found["baselines/leak_probe"] < 55
    assert found["baselines/colour_tracker"] == pytest.approx(50, abs=1)  # all are white
    assert found["baselines/majority"] == 50
    assert found["baselines/majority_accuracy"] > 60
    margin = 100 - found["baselines/tracker"]
    assert found["tokens/margin_over_tracker"] == pytest.approx(margin)
    assert found["attention/summary/ratio"] == pytest.approx(9, rel=1e-5)
    assert found["attention/last_layer/ratio"] == pytest.approx(9, rel=1e-5)
    assert found["attention/layer_1/ratio"] == 1
    assert found["detection/recall"] == 100
    assert found["detection/false_positives_per_frame"] == pytest.approx(1 / T)


def test_interval_and_objects_of_a_model_that_errs(tmp_path: Path, clips: list[Clip]) -> None:
    found = evaluate(tmp_path, clips)
    assert found["tokens/balanced_accuracy"] == pytest.approx(90, abs=3)
    low, high = (found[f"tokens/balanced_accuracy_{end}"] for end in ("low", "high"))
    assert 86 < low < found["tokens/balanced_accuracy"] < high < 94
    assert found["objects/balanced_accuracy"] > 97  # ten tokens of an object outvote one
    low, high = (found[f"tokens/margin_over_tracker_{end}"] for end in ("low", "high"))
    assert low < found["tokens/margin_over_tracker"] < high


def test_colours_that_tell_are_told(tmp_path: Path) -> None:
    found = evaluate(tmp_path, [make_clip(n, leak=True) for n in range(30)])
    assert found["baselines/leak_probe"] == 100
    assert found["baselines/colour_tracker"] == 100


def test_files(tmp_path: Path, clips: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = evaluate(tmp_path, clips)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written == {k: v if math.isfinite(v) else None for k, v in found.items()}
    report = (tmp_path / "report.md").read_text()
    for title in ("Decisions", "Detection", "Attention", "By frame"):
        assert f"## {title}" in report
    assert f"{found['tokens/balanced_accuracy']:.2f} (" in report
    assert "By frame" not in caplog.text
    attention = json.loads((tmp_path / "attention_metrics.json").read_text())
    assert set(attention) == {"summary", "layer 1", "layer 2"}
    per_frame = attention["summary"]["per_frame"]
    assert sum(map(sum, per_frame.values())) == pytest.approx(1)
    rows = list(csv.DictReader((tmp_path / "per_frame.csv").open()))
    assert len(rows) == T
    assert sum(float(row["num_persistent"]) for row in rows) == 40 * 2 * T
    masses = [float(row["attention_summary_persistent"]) for row in rows]
    assert masses == pytest.approx(per_frame["persistent"], rel=1e-4)


def test_what_is_kept_is_plain_json_and_can_be_continued(tmp_path: Path, clips: list[Clip]) -> None:
    whole = evaluate(tmp_path / "whole", clips)
    store = ResultStore(tmp_path / "store")
    store.open({"weights": 1})
    for sample, prediction in reversed(clips):  # each in a process of its own, as after a stop
        part = ObjectPersistenceEvaluator(tmp_path / "parts", num_resamples=200)
        part.results = store
        part.process([sample], [prediction])
    continued = flatten(part.evaluate())
    assert continued == pytest.approx(whole, nan_ok=True, abs=0)


def test_few_clips_have_no_ratio(tmp_path: Path, clips: list[Clip]) -> None:
    found = evaluate(tmp_path, clips[:19])
    assert math.isnan(found["attention/summary/ratio"])
    assert json.loads((tmp_path / "metrics.json").read_text())["attention/summary/ratio"] is None
    assert "Under 20 clips" in (tmp_path / "report.md").read_text()


def test_labels_follow_the_tokens_that_a_long_clip_keeps(tmp_path: Path) -> None:
    kept = []
    for sample, prediction in [make_clip(n, background=2) for n in range(20)]:
        order = torch.randperm(len(prediction.logits))[:-5]
        fields = {name: getattr(prediction, name)[order] for name in ("logits", "tracks", "kept")}
        attention = {"summary": torch.full((len(order),), 1 / len(order))}
        found = prediction.detections.select(order)
        fewer = dataclasses.replace(prediction, **fields, detections=found, attention=attention)
        kept.append((sample, fewer))
    found = evaluate(tmp_path, kept)
    assert found["tokens/balanced_accuracy"] == 100
    assert 85 < found["detection/recall"] < 100


def test_clips_without_blobs_count(tmp_path: Path, clips: list[Clip]) -> None:
    whole = evaluate(tmp_path, clips)
    sample, prediction = make_clip(50)
    none = torch.zeros(0, dtype=torch.int64)
    empty = dataclasses.replace(
        prediction,
        detections=prediction.detections.select(none),
        logits=torch.zeros(0),
        attention={"summary": torch.zeros(0)},
        tracks=none,
        kept=none,
    )
    found = evaluate(tmp_path, [*clips, (sample, empty)])
    assert found["tokens/num_clips"] == 41
    assert found["tokens/balanced_accuracy"] == whole["tokens/balanced_accuracy"]
    assert found["detection/recall"] < whole["detection/recall"]


def test_nothing_found_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "per_frame.csv").write_text("of an earlier evaluation")
    found = evaluate(tmp_path, [])
    assert list(found) == ["tokens/balanced_accuracy"]
    assert math.isnan(found["tokens/balanced_accuracy"])
    assert "nothing was found in 0 clips" in caplog.text
    assert "nothing was found" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "per_frame.csv").exists()


def test_clips_without_truth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unknown = [make_clip(n, truth=False) for n in range(3)]
    for sample, _ in unknown[:2]:
        del sample["labels"], sample["object_ids"]  # found by the model itself
    found = evaluate(tmp_path, unknown)
    assert not any(name.startswith(("tokens", "baselines", "detection")) for name in found)
    assert found["attention/layer_1/entropy"] == pytest.approx(1, abs=1e-6)
    assert "no blob has a label" in caplog.text
    assert "## Attention" in (tmp_path / "report.md").read_text()


def test_clips_of_one_class_alone(tmp_path: Path) -> None:
    found = evaluate(tmp_path, [make_clip(n, transients=0) for n in range(25)])
    assert found["tokens/accuracy_persistent"] == found["tokens/accuracy"] == 100
    assert math.isnan(found["tokens/balanced_accuracy"])
    assert math.isnan(found["attention/summary/ratio"])
    assert math.isnan(found["baselines/leak_probe"])


def test_diverged_weights_are_the_models_fault(tmp_path: Path, clips: list[Clip]) -> None:
    sample, prediction = clips[0]
    prediction.logits[3] = math.nan
    with pytest.raises(UserError, match=r"decisions on clip clip_000 are no numbers"):
        evaluate(tmp_path, [(sample, prediction)])


def test_durations_and_queries_are_scored_if_there_are_any(tmp_path: Path) -> None:
    clips = []
    for sample, prediction in [make_clip(n) for n in range(20)]:
        objects = sample["objects"]
        prediction.durations = objects["durations"][sample["object_ids"]] + 0.1
        prediction.queries = {
            "logits": 4 * torch.eye(3)[[*objects["labels"].tolist(), 2]],
            "presence": torch.cat([objects["presence"].float(), torch.ones(1, T)]),
            "durations": torch.cat([objects["durations"] - 0.2, torch.zeros(1)]),
        }
        clips.append((sample, prediction))
    found = evaluate(tmp_path, clips)
    assert found["duration/MAE"] == pytest.approx(0.1, abs=1e-5)
    assert 0 < found["duration/MAE_tracker"] < 0.2
    assert found["queries/accuracy"] == found["queries/precision"] == 100
    assert found["queries/duration_MAE"] == pytest.approx(0.2, abs=1e-5)
    report = (tmp_path / "report.md").read_text()
    assert "## Object queries" in report
    assert "error of the duration" in report


def test_draws_the_first_clips_that_show_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def save(folder: Path, sample: Settings, prediction: Any) -> list[Path]:
        assert folder.is_dir()
        assert len(sample["labels"]) == len(prediction.logits)
        drawn.append(sample["video_id"])
        return []

    pictures: Any = types.ModuleType("pictures")
    pictures.save_clip_pictures = save
    monkeypatch.setitem(sys.modules, "vidseg.projects.persistence.pictures", pictures)
    clips = [make_clip(n, transients=n % 2) for n in range(8)]
    evaluate(tmp_path / "whole", clips, num_pictures=2)
    assert drawn == ["clip_001", "clip_003"]
    drawn.clear()

    store: dict[str, Any] = {}
    for part in (clips[:3], clips[3:]):  # stopped between
        evaluator = ObjectPersistenceEvaluator(tmp_path / "parts", num_pictures=2)
        evaluator.results = store
        evaluator.process(*zip(*part, strict=True))
    assert drawn == ["clip_001", "clip_003"]
    drawn.clear()

    evaluate(tmp_path / "unknown", [make_clip(9, truth=False)], num_pictures=2)
    assert drawn == ["clip_009"]
    evaluate(tmp_path / "none", clips, num_pictures=0)
    assert drawn == ["clip_009"]
