"""The evaluator of slots over a split: figures, what stands beside them, files, and odd clips."""

from __future__ import annotations

import csv
import json
import logging
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg.config import get_cfg
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.evaluation import ResultStore
from vidseg.evaluation.base import EVALUATOR_REGISTRY
from vidseg.evaluation.discovery import mean_shares, score_segments
from vidseg.projects.slot_bert import add_config, baselines
from vidseg.projects.slot_bert.evaluator import SlotDiscoveryEvaluator
from vidseg.projects.slot_bert.grid_ceiling import grid_ceiling
from vidseg.projects.slot_bert.kmeans_baseline import kmeans_labels

T, H, W, K, D = 4, 24, 32, 5, 8
Clip = tuple[dict[str, Any], dict[str, Any]]
RGB = torch.tensor([[60, 60, 60], [220, 30, 30], [30, 200, 40], [40, 60, 230]])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))


def make_clip(number: int, *, error: float = 0.0, truth: bool = True, length: int = T) -> Clip:
    """Three squares that move, and a model that finds them but for some pixels."""
    rng = np.random.default_rng(number)
    labels = torch.zeros(length, H, W, dtype=torch.int16)
    for t in range(length):
        for k in range(3):
            x = 2 + 10 * k + t % 3
            labels[t, 4 + 5 * k : 10 + 5 * k, x : x + 6] = k + 1
    frames = RGB[labels.long()].movedim(-1, 1)
    frames = (frames + torch.from_numpy(rng.integers(-9, 10, frames.shape))).clamp(0, 255)
    segmentation = labels.long()
    wrong = torch.from_numpy(rng.random(segmentation.shape) < error)
    segmentation = torch.where(wrong, 4, segmentation)
    attn = torch.zeros(length, K, H // 4, W // 4)
    attn.scatter_(1, segmentation[:, None, 1::4, 1::4], 1.0)
    small = torch.nn.functional.interpolate(frames.float() / 255, (8, 8), mode="area")
    prediction = {
        "slots": torch.from_numpy(rng.normal(size=(length, K, D))).float(),
        "attn": attn,
        "decoder_masks": torch.full((length, K, 8, 8), 1 / K),
        "reconstruction": small + 0.1,
        "segmentation": segmentation,
    }
    sample = {
        "video_id": f"clip_{number:02d}",
        "frames": frames.to(torch.uint8),
        "length": length,
        "height": H,
        "width": W,
        "label_maps": labels if truth else None,
    }
    return sample, prediction


def evaluate(folder: Path, clips: list[Clip], **options: Any) -> dict[str, float]:
    options = {"num_slots": K, "num_resamples": 100, "with_baselines": False, **options}
    evaluator = SlotDiscoveryEvaluator(folder, **options)
    if clips:
        evaluator.process(*zip(*clips, strict=True))
    return flatten(evaluator.evaluate())


def flatten(metrics: Any) -> dict[str, float]:
    return {f"{task}/{name}": v for task, values in metrics.items() for name, v in values.items()}


@pytest.fixture
def clips() -> list[Clip]:
    return [make_clip(n, error=0.02 * n) for n in range(5)]


def test_is_built_from_the_config(tmp_path: Path) -> None:
    cfg = get_cfg()
    add_config(cfg)
    found = EVALUATOR_REGISTRY.get("slot_discovery")
    assert found is SlotDiscoveryEvaluator
    cfg.TEST.SLOT_BERT.FIRST_FRAME = False
    metadata: Any = types.SimpleNamespace(name="shapes")
    options = SlotDiscoveryEvaluator.from_config(cfg, metadata, tmp_path)
    SlotDiscoveryEvaluator(**options)
    assert (options["num_slots"], options["first_frame"]) == (7, False)
    cfg.TEST.SLOT_BERT.BOOTSTRAP = -1
    with pytest.raises(ConfigError, match=r"TEST.SLOT_BERT.BOOTSTRAP is -1; set 0 or more"):
        SlotDiscoveryEvaluator.from_config(cfg, metadata, tmp_path)


def test_right_segments_score_1(tmp_path: Path) -> None:
    found = evaluate(tmp_path, [make_clip(n) for n in range(3)])
    for group in ("video", "image"):
        for name in ("FG-ARI", "mBO", "mIoU"):
            assert found[f"{group}/{name}"] == found[f"{group}/{name}_low"] == 1
    assert found["video/J&F"] == 100
    assert found["solv/mIoU"] == found["solv/FG-ARI"] == 1
    assert found["identity/consistency"] == 1
    assert found["identity/switches"] == 0
    assert math.isnan(found["identity/return"])
    assert found["reconstruction/PSNR"] == pytest.approx(20, abs=0.2)
    assert found["reconstruction/PSNR_full_size"] < found["reconstruction/PSNR"]
    assert found["slots/used_slots"] == 4
    assert found["slots/max_mask"] == 1


def test_figures_are_those_of_the_metrics(tmp_path: Path, clips: list[Clip]) -> None:
    found = evaluate(tmp_path, clips)
    shares = [score_segments(s["label_maps"].numpy(), p["segmentation"].numpy()) for s, p in clips]
    for name, value in mean_shares(shares).items():
        assert found[name] == pytest.approx(value, nan_ok=True)
    assert found["video/mBO_low"] < found["video/mBO"] < found["video/mBO_high"] < 1
    first = score_segments(
        clips[4][0]["label_maps"].numpy()[1:], clips[4][1]["segmentation"].numpy()[1:]
    )
    without = evaluate(tmp_path, clips[4:], first_frame=False, num_resamples=0)
    assert without["image/mBO"] == pytest.approx(mean_shares([first])["image/mBO"])


def test_kmeans_and_ceiling_stand_beside(tmp_path: Path, clips: list[Clip]) -> None:
    clips = clips[3:]
    found = evaluate(tmp_path, clips, with_baselines=True)
    for method, weight in (("kmeans_color", 0.0), ("kmeans_color_position", 0.3)):
        expected = mean_shares(
            score_segments(
                s["label_maps"].numpy(),
                np.asarray(kmeans_labels(s["frames"], K, pos_weight=weight, restarts=3, seed=0)),
            )
            for s, _ in clips
        )
        for name in ("video/FG-ARI", "image/mBO", "identity/consistency"):
            flat = f"baselines/{method}_{name.replace('/', '_')}"
            assert found[flat] == pytest.approx(expected[name])
        margin = found["video/mBO"] - expected["video/mBO"]
        assert found[f"baselines/margin_{method}_video_mBO"] == pytest.approx(margin)
    for source, grid in (("attn", (6, 8)), ("decoder", (8, 8)), ("product", (8, 8))):
        ceiling = mean_shares(
            score_segments(s["label_maps"].numpy(), np.asarray(grid_ceiling(s["label_maps"], grid)))
            for s, _ in clips
        )
        found = evaluate(tmp_path, clips, mask_source=source, with_baselines=True)
        assert found["baselines/ceiling_video_FG-ARI"] == pytest.approx(ceiling["video/FG-ARI"])
        assert found["baselines/ceiling_video_FG-ARI"] < 1
    assert not any(name.startswith("baselines") for name in evaluate(tmp_path, clips))


def test_kmeans_runs_once_for_a_clip(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    clips = clips[:1]

    def counted(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return kmeans_labels(*args, **kwargs)

    monkeypatch.setattr(baselines, "kmeans_labels", counted)
    first = evaluate(tmp_path / "a", clips, with_baselines=True)
    assert len(runs) == 2
    for _, prediction in clips:
        prediction["segmentation"] = prediction["segmentation"].clamp(max=3)
    second = evaluate(tmp_path / "b", clips, with_baselines=True)
    assert len(runs) == 2
    name = "baselines/kmeans_color_video_FG-ARI"
    assert second[name] == first[name]
    evaluate(tmp_path, clips, num_slots=K + 1, with_baselines=True)
    assert len(runs) == 4
    files = sorted((tmp_path / "cache").rglob("*.json"))
    assert len(files) == 2
    for file in files:
        file.write_text("half a fi")
    assert evaluate(tmp_path / "c", clips, with_baselines=True)[name] == first[name]
    assert len(runs) == 6


def test_kmeans_needs_no_disk(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "file"))
    found = evaluate(tmp_path, clips[:1], with_baselines=True)
    assert found["baselines/kmeans_color_video_FG-ARI"] > 0


def test_files(tmp_path: Path, clips: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = evaluate(tmp_path, clips, with_baselines=True)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written == {k: v if math.isfinite(v) else None for k, v in found.items()}
    report = (tmp_path / "report.md").read_text()
    assert report in caplog.text
    for text in ("## Segments of the data set (5 clips", "## Identity over time", "k-means on"):
        assert text in report
    low, high = found["video/FG-ARI_low"], found["video/FG-ARI_high"]
    assert f"{found['video/FG-ARI']:.3f} ({low:.3f} to {high:.3f})" in report
    assert f"{found['baselines/ceiling_video_FG-ARI']:.3f}" in report
    rows = list(csv.DictReader((tmp_path / "per_video.csv").open()))
    assert [row["video_id"] for row in rows] == [s["video_id"] for s, _ in clips]
    mean = np.mean([float(row["video/mBO"]) for row in rows])
    assert mean == pytest.approx(found["video/mBO"], abs=1e-5)
    assert float(rows[0]["kmeans_color/video/FG-ARI"]) <= 1
    assert rows[0]["identity/return"] == ""


def test_what_is_kept_is_plain_json_and_can_be_continued(tmp_path: Path, clips: list[Clip]) -> None:
    whole = evaluate(tmp_path / "whole", clips, num_resamples=10)
    store = ResultStore(tmp_path / "store")
    store.open({"weights": 1})
    for sample, prediction in reversed(clips):  # each in a process of its own, as after a stop
        part = SlotDiscoveryEvaluator(
            tmp_path / "parts", num_slots=K, num_resamples=10, with_baselines=False
        )
        part.results = store
        part.process([sample], [prediction])
    assert flatten(part.evaluate()) == pytest.approx(whole, nan_ok=True, abs=0)


def test_a_stopped_evaluation_may_go_on_with_other_settings(
    tmp_path: Path, clips: list[Clip]
) -> None:
    store: dict[str, Any] = {}

    def run(part: list[Clip], **options: Any) -> dict[str, float]:
        evaluator = SlotDiscoveryEvaluator(tmp_path, num_slots=K, num_resamples=0, **options)
        evaluator.results = store
        evaluator.process(*zip(*part, strict=True))
        return flatten(evaluator.evaluate())

    run(clips[:2], with_baselines=False)
    mixed = run(clips[2:4], first_frame=False)
    assert not any(name.startswith("baselines") for name in mixed)
    whole = evaluate(tmp_path / "whole", clips[:4], num_resamples=0, first_frame=False)
    assert mixed == pytest.approx(whole, nan_ok=True, abs=0)


def test_clips_without_truth(tmp_path: Path) -> None:
    unknown = [make_clip(n, truth=False) for n in range(2)]
    del unknown[1][0]["label_maps"]
    found = evaluate(tmp_path, unknown)
    assert {name.partition("/")[0] for name in found} == {"reconstruction", "slots"}
    assert found["slots/used_slots"] == 4
    assert "has no truth" in (tmp_path / "report.md").read_text()
    some = evaluate(tmp_path, [*unknown, make_clip(7)])
    assert some["video/FG-ARI"] == 1


def test_a_segmentation_is_enough(tmp_path: Path) -> None:
    sample, prediction = make_clip(1)
    found = evaluate(
        tmp_path,
        [(sample, {"segmentation": prediction["segmentation"].numpy()})],
        with_baselines=True,
    )
    assert found["video/FG-ARI"] == 1
    assert found["slots/used_slots"] == 4
    assert not any(name.startswith("reconstruction") or "ceiling" in name for name in found)
    assert "baselines/kmeans_color_video_mBO" in found


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("first_frame", [True, False])
def test_short_clips(tmp_path: Path, length: int, first_frame: bool) -> None:
    found = evaluate(tmp_path, [make_clip(1, length=length)], first_frame=first_frame)
    is_left = length > 1 or first_frame
    assert found["video/FG-ARI"] == pytest.approx(1 if is_left else math.nan, nan_ok=True)
    assert found.get("reconstruction/PSNR", 0) == (pytest.approx(20, abs=0.2) if is_left else 0)


def test_no_clip_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert evaluate(tmp_path, []) == {}
    assert "nothing to score" in caplog.text


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_frames(tmp_path: Path, channels: int) -> None:
    sample, prediction = make_clip(1)
    frames = sample["frames"]
    alpha = torch.full_like(frames[:, :1], 255)
    sample["frames"] = frames[:, :1] if channels == 1 else torch.cat([frames, alpha], 1)
    found = evaluate(tmp_path, [(sample, prediction)], with_baselines=True)
    assert found["video/FG-ARI"] == 1
    assert found["baselines/kmeans_color_video_FG-ARI"] > 0


def test_faults_are_named(tmp_path: Path) -> None:
    sample, prediction = make_clip(1)
    broken = {**prediction, "attn": prediction["attn"] * math.nan}
    with pytest.raises(UserError, match=r"the model's attn of clip clip_01 are no numbers"):
        evaluate(tmp_path, [(sample, broken)])
    with pytest.raises(DataError, match=r"clip_01: the label maps \(3, 24, 32\)"):
        evaluate(tmp_path, [({**sample, "label_maps": sample["label_maps"][:3]}, prediction)])


def test_a_collapse_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sample, prediction = make_clip(1)
    prediction["segmentation"] = torch.zeros(T, H, W, dtype=torch.int64)
    prediction["slots"] = torch.ones(T, K, D)
    found = evaluate(tmp_path, [(sample, prediction)])
    assert found["slots/used_slots"] == 1
    assert found["slots/slot_cosine"] == pytest.approx(1)
    assert "the slots have collapsed" in caplog.text
    report = (tmp_path / "report.md").read_text()
    assert "Warning: the slots have collapsed" in report
    assert "Warning: the slots are nearly the same" in report


def test_dropped_frames_are_told_apart(tmp_path: Path) -> None:
    clips = []
    for sample, prediction in (make_clip(n) for n in range(3)):
        dropped = torch.tensor([False, True, False, False])
        truth = prediction["slots"]
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
        for name, size in (("slots", 0.05), ("slots_corrected", 0.1)):
            prediction[name] = torch.where(dropped[:, None, None], truth + size * noise, truth)
        prediction["slots_seen"] = truth
        prediction["segmentation"][1] = 0
        clips.append(({**sample, "dropped": dropped}, prediction))
    found = evaluate(tmp_path, clips)
    assert found["dropped/cosine_error"] > 0
    assert found["dropped/relative_error"] == pytest.approx(0.25, abs=0.05)  # squares of a half
    assert found["dropped/relative_error_low"] <= found["dropped/relative_error"]
    assert found["dropped/object_relative_error"] == pytest.approx(0.25, abs=0.05)
    assert found["dropped/FG-ARI"] == 0
    assert found["dropped/PSNR"] == pytest.approx(20, abs=0.2)
    report = (tmp_path / "report.md").read_text()
    assert "## Frames that were not looked at" in report
    assert f"interpolation: {found['dropped/relative_error']:.3f}" in report
    for _, prediction in clips:
        del prediction["slots_seen"]
    found = evaluate(tmp_path, clips)
    assert found["dropped/FG-ARI"] == 0
    assert "dropped/relative_error" not in found


def test_draws_the_first_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def save(folder: Path, sample: dict[str, Any], prediction: Any) -> list[Path]:
        assert folder.is_dir()
        assert prediction["segmentation"].shape == (T, H, W)
        drawn.append(sample["video_id"])
        return []

    pictures: Any = types.ModuleType("pictures")
    pictures.save_clip_pictures = save
    monkeypatch.setitem(sys.modules, "vidseg.projects.slot_bert.pictures", pictures)
    clips = [make_clip(n, truth=n != 1) for n in range(4)]
    evaluate(tmp_path / "whole", clips, num_pictures=2)
    assert drawn == ["clip_00", "clip_01"]
    drawn.clear()

    store: dict[str, Any] = {}
    for part in (clips[:1], clips[1:]):  # stopped between
        evaluator = SlotDiscoveryEvaluator(
            tmp_path / "parts", num_slots=K, num_pictures=2, with_baselines=False
        )
        evaluator.results = store
        evaluator.process(*zip(*part, strict=True))
    assert drawn == ["clip_00", "clip_01"]
    evaluate(tmp_path / "none", clips, num_pictures=0)
    assert len(drawn) == 2
