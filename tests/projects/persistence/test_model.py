"""Object persistence as a model of vidseg: from config, samples in, losses and predictions out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.projects.persistence.token_samples import FULL, NUM_FRAMES, build, config, sample
from vidseg.config import load_config
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_model
from vidseg.projects.persistence import ObjectPersistence, TokenPrediction

PRESETS = Path(__file__).resolve().parents[3] / "projects" / "persistence"
ALL = pytest.mark.parametrize("settings", [{}, FULL], ids=["baseline", "full"])


@ALL
def test_predictions(settings: dict[str, Any]) -> None:
    model = build(**settings)
    predictions = model([sample(3), sample(0, 1), sample(5, 2)])
    sources = (["summary"] if settings else []) + ["layer 1", "layer 2"]
    for given, one in zip((sample(3), sample(0, 1), sample(5, 2)), predictions, strict=True):
        num = len(given["detections"])
        assert one.logits.shape == one.tracks.shape == one.kept.shape == (num,)
        assert one.matrix.shape == (num, num)
        assert list(one.attention) == sources
        for values in one.attention.values():
            assert values.shape == (num,)
            assert values.sum().item() == pytest.approx(1.0 if num else 0.0, abs=1e-5)
        rows = one.matrix.sum(1)
        assert (rows < 1 + 1e-5).all()
        assert (one.durations is None) == (one.queries is None) == (not settings)
        if settings:
            assert ((rows < 1 - 1e-4).all(), one.durations.shape) == (True, (num,))
            assert one.queries["logits"].shape == (6, 3)
            assert one.queries["presence"].shape == (6, NUM_FRAMES)


def test_samples_of_frames_alone_are_searched_for_blobs() -> None:
    model = build()
    frames = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    for frame in range(4):
        frames[frame, :, (y - 20) ** 2 + (x - 18 - frame) ** 2 < 16] = 255
    (prediction,) = model([{"frames": frames, "video_id": "v"}])
    assert prediction.detections.frame.tolist() == [0, 1, 2, 3]
    detections, patches = model.detect(frames)
    assert patches.shape == (4, 3, 6, 6)
    again = model.predict(detections, patches, tracks=torch.arange(4))
    assert torch.equal(again.logits, prediction.logits)
    assert (again.tracks.tolist(), prediction.tracks.tolist()) == ([0, 1, 2, 3], [0, 0, 0, 0])
    for same in (
        frames[:, :1],
        torch.cat([frames, frames[:, :1]], 1),
        frames / 255,
        frames.numpy(),
    ):
        (found,) = model([{"frames": same, "video_id": "v"}])
        assert torch.equal(found.logits, prediction.logits)
    (nothing,) = model([{"frames": frames * 0, "video_id": "dark"}])
    assert len(nothing.logits) == 0


def test_too_many_blobs_are_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    model, one = build(MAX_TOKENS=5), sample(4)
    with caplog.at_level(logging.WARNING):
        prediction, again = model([one, {**one, "video_id": "other"}])
    confidence = one["detections"].confidence
    best = confidence.argsort(descending=True)[:5].sort().values
    assert prediction.kept.tolist() == best.tolist()
    assert torch.equal(prediction.detections.confidence, confidence[best])
    assert len(again.logits) == len(prediction.tracks) == 5
    assert [record.args for record in caplog.records] == [
        ("clip clip0", 22, 5, 0),
        ("clip other", 22, 5, 1),
    ]
    assert model.train()([one])["loss_token"].isfinite()


def test_bad_samples_are_named() -> None:
    model = build(TIME="learned", MAX_FRAMES=4)
    with pytest.raises(DataError, match="clip clip0: 8 frames are more than the 4"):
        model([sample(2)])
    frames = torch.full((4, 3, 40, 40), torch.nan)
    with pytest.raises(DataError, match=r"clip v: .*NaN"):
        build()([{"frames": frames, "video_id": "v"}])
    unlabelled = {name: value for name, value in sample(2).items() if name != "labels"}
    with pytest.raises(DataError, match="clip0 has no labels"):
        build().train()([unlabelled])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TIME", "sinusoid", "TIME is 'sinusoid'; nearest: sinusoidal"),
        ("POSITION", "relative", "POSITION is 'relative'; nearest: absolute, none"),
        ("RELATIVE_BIAS", "move", "RELATIVE_BIAS is 'move'"),
        ("CONTRASTIVE", "objects", "CONTRASTIVE is 'objects'; nearest: object"),
        ("NHEADS", 3, "NHEADS is 3 and HIDDEN_DIM 32; set NHEADS to a divisor"),
        ("DROPOUT", 1.0, "DROPOUT is 1.0"),
        ("QUERIES", -1, "QUERIES is -1; it cannot be negative"),
        ("MAX_TOKENS", 0, "MAX_TOKENS is 0; it must be 1 or more"),
        ("CONTRASTIVE_TEMPERATURE", 0.0, "CONTRASTIVE_TEMPERATURE is 0.0; it must be above 0"),
        ("FREEZE_ENCODER", True, "FREEZE_ENCODER needs an encoder"),
        ("ENCODER", "resnet17", r"MODEL.PERSISTENCE.ENCODER is 'resnet17'; nearest: resnet18"),
        ("ENCODER", "timm/no_such_net", r"MODEL.PERSISTENCE.ENCODER is 'timm/no_such_net'"),
    ],
)
def test_config_errors_name_keys(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(config(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.PERSISTENCE.TRACKER.GATE", 0.0),
        ("MODEL.PERSISTENCE.TRACKER.APPEARANCE_WEIGHT", -0.5),
        ("MODEL.PERSISTENCE.TRACKER.MAX_GAP", 0),
        ("MODEL.PERSISTENCE.TRACKER.MIN_PRESENCE", 70.0),
        ("TEST.PERSISTENCE.NUM_PICTURES", -1),
        ("TEST.PERSISTENCE.WINDOW_FRAMES", 0),
        ("TEST.PERSISTENCE.BOOTSTRAP", -1),
    ],
)
def test_what_the_evaluation_needs_is_checked_before_training(key: str, value: float) -> None:
    cfg = config()
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=rf"^{key} is {value}; "):
        build_model(cfg)


def test_weights_of_a_backbone_need_a_backbone() -> None:
    cfg = config()
    cfg.MODEL.BACKBONE.WEIGHTS = "resnet18.pth"
    with pytest.raises(ConfigError, match=r"MODEL.BACKBONE.WEIGHTS is set, but .*ENCODER is cnn"):
        build_model(cfg)


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(settings: dict[str, Any], dtype: torch.dtype) -> None:
    model = build(**settings)
    exact = model([sample(4)])[0]
    with torch.autocast("cpu", dtype):
        rough = model([sample(4)])[0]
        losses = model.train()([sample(4), sample(3, 1)])
    assert rough.logits.dtype == torch.float32
    torch.testing.assert_close(rough.logits, exact.logits, atol=0.05, rtol=0.05)
    total = torch.stack(list(losses.values())).sum()
    assert total.dtype == torch.float32
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@ALL
def test_a_model_learns_by_heart(settings: dict[str, Any]) -> None:
    model = build(**settings).train()
    samples = [sample(4, seed) for seed in range(2)]
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.stack(list(model(samples).values())).sum().backward()
        optimizer.step()
    for one, prediction in zip(samples, model.eval()(samples), strict=True):
        assert ((prediction.logits > 0) == (one["labels"] == 1)).float().mean() > 0.95


@pytest.mark.parametrize("path", sorted(PRESETS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_builds_and_learns(path: Path) -> None:
    cfg = load_config(str(path))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    assert isinstance(model, ObjectPersistence)
    one = sample(3)
    torch.stack(list(model([one]).values())).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    (prediction,) = model.eval()([one])
    assert isinstance(prediction, TokenPrediction)
    assert cfg.DATASETS.TEST
