"""The model: samples in, losses or predictions out; what it fits, and what it says of bad input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.projects.fact_clip.small_model import (
    NUM_CLASSES,
    NUM_TOKENS,
    WIDTH,
    build,
    runs,
    small_cfg,
    video,
)
from vidseg.data import DatasetCatalog
from vidseg.engine.hooks import FittingHook
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_model
from vidseg.projects.fact_clip import FACT
from vidseg.projects.fact_clip.samples import Sample, read_features

LABELS = runs((0, 9), (3, 14), (1, 5), (3, 8), (5, 20))
TRANSCRIPT = {"FACT__trans": True, "Loss__match": "seq"}
BLOCKS = pytest.mark.parametrize("block", ["iu", "iU", "iuUU", "iUU"])


class Passes:
    """A training set that counts the passes over it."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples
        self.count = 0

    def __call__(self) -> Iterator[list[Sample]]:
        self.count += 1
        for sample in self.samples:
            yield [sample]


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


@BLOCKS
def test_a_batch_gives_what_its_videos_give_alone(block: str) -> None:
    model = build(FACT__block=block)
    model.criterion.null_weight = 0.3
    videos = [video(LABELS), video(LABELS[:31], 1), video([2], 2), video(LABELS[9:20], 3)]
    together = model.train()(videos)
    alone = [model([one]) for one in videos]
    for name, value in together.items():
        expected = torch.stack([losses[name] for losses in alone]).mean()
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    for one, found in zip(videos, model.eval()(videos), strict=True):
        [same] = model([one])
        assert torch.equal(found.probabilities, same.probabilities)
        assert found.labels.shape == (len(one["labels"]),)
        assert found.attention.shape == (len(one["labels"]), NUM_TOKENS)


@BLOCKS
@pytest.mark.parametrize(
    "labels",
    [[4], [4, 1], [0] * 30, list(range(6)) * 4, [-100] * 10, [1] * 5 + [-100] * 5 + [2] * 5],
    ids=["one frame", "two", "background", "many segments", "no labels", "gap"],
)
def test_training_is_finite_on_odd_videos(block: str, labels: list[int]) -> None:
    model = build(FACT__block=block)
    losses = model.train()([video(labels)])
    total(losses).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    [prediction] = model.eval()([video(labels)])
    assert prediction.probabilities.isfinite().all()


@pytest.mark.parametrize("match", ["o2o", "o2m"])
def test_a_step_lowers_the_loss(match: str) -> None:
    model = build(Loss__match=match, FACT__block="iU").train()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    sample = video(LABELS)
    sample["features"] += 2 * torch.nn.functional.one_hot(sample["labels"], WIDTH)
    first = None
    for _ in range(25):
        loss = total(model([sample]))
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first
    [prediction] = model.eval()([sample])
    assert (prediction.labels == sample["labels"]).float().mean() > 0.9


def test_a_transcript_is_an_input_and_bounds_the_labels() -> None:
    model = build(**TRANSCRIPT)
    sample = video(LABELS)
    [prediction] = model.eval()([sample])
    assert set(prediction.labels.tolist()) <= set(LABELS)
    assert prediction.attention.shape == (len(LABELS), 5)
    total(model.train()([sample])).backward()
    losses = model([video([-100] * 9)])
    assert total(losses).isfinite()
    assert losses["loss_frame"] == losses["loss_token"] == 0
    for labels in (None, torch.full((56,), -100)):
        sample["labels"] = labels
        if labels is None:
            del sample["labels"]
        with pytest.raises(DataError, match=r"video0: .*(labels are needed|no transcript)"):
            model.eval()([sample])


def test_prediction_needs_no_labels() -> None:
    sample = video(LABELS)
    model = build().eval()
    [with_labels] = model([sample])
    del sample["labels"]
    [without] = model([sample])
    assert torch.equal(with_labels.probabilities, without.probabilities)


def test_large_features_are_no_infinite_ones() -> None:
    large = torch.full((2, 2), 3e38)
    assert read_features({"features": large}, 2) is large


def test_labels_of_another_integer_type() -> None:
    model = build(Loss__nullw=0.2).train()
    sample = video(LABELS)
    expected = total(model([sample]))
    assert torch.equal(total(model([{**sample, "labels": sample["labels"].int()}])), expected)


def test_what_the_demo_writes(tmp_path: Path) -> None:
    model = build().eval()
    sample = {**video(LABELS), "frame_indices": range(56)}
    [prediction] = model([sample])
    says = model.write_prediction(tmp_path / "view", sample, prediction)
    assert "56 frames" in says
    assert f"class {prediction.labels[0]}" in says
    found = sorted(path.name for path in (tmp_path / "view").iterdir())
    assert found == ["segments.csv", "timeline.png"]


def test_frames_that_are_missing_are_not_trained() -> None:
    model = build(Loss__nullw=0.2).train()
    sample = video(LABELS)
    masked = {**sample, "mask": torch.ones(len(LABELS), dtype=torch.bool)}
    masked["mask"][9:23] = False
    ignored = {**sample, "labels": sample["labels"].masked_fill(~masked["mask"], -1)}
    assert torch.equal(total(model([masked])), total(model([ignored])))
    assert not torch.isclose(total(model([masked])), total(model([sample])))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": torch.zeros(4, 13)}, r"\(4, 13\).*built for 12 .*FACT.input_dim"),
        ({"features": torch.zeros(WIDTH, 56)}, r"\(12, 56\).*transpose them"),
        ({"features": torch.zeros(0, WIDTH)}, "no frames"),
        ({"features": torch.zeros(4, 3, WIDTH)}, r"\(4, 3, 12\)"),
        ({"features": torch.full((56, WIDTH), torch.nan)}, "frame 0 hold NaN"),
        ({"labels": torch.zeros(55, dtype=torch.int64)}, "56 frames have labels"),
        ({"labels": torch.full((56,), 6)}, "frame 0 has the label 6, the model has 6 classes"),
        ({"labels": None}, "no labels to train on"),
    ],
)
def test_unsuitable_videos_are_named(change: dict[str, Any], says: str) -> None:
    sample = {**video(LABELS), "file_names": ["a/b.npy"], **change}
    with pytest.raises(DataError, match=rf"^video video0 \(a/b.npy\): .*{says}"):
        build().train()([sample])


@pytest.mark.parametrize(("match", "mean"), [("o2o", (5 + 2 + 3) / 3), ("o2m", (4 + 1 + 2) / 3)])
def test_null_weight_follows_from_the_training_labels(match: str, mean: float) -> None:
    model = build(Loss__match=match).train()
    assert not model.is_fitted
    passes = Passes(
        video(LABELS),
        video([1, 1, -100, 1], 1),
        video([2, 2, 3, 3, 2], 2),
        video([-100] * 7, 3),
    )
    before = list(model.state_dict())
    assert not model.at_iteration(0, 10, passes)
    assert model.is_fitted
    expected = NUM_TOKENS / ((NUM_TOKENS - mean) * NUM_CLASSES)
    assert model.criterion.null_weight == pytest.approx(expected)
    assert list(model.state_dict()) == before
    assert not model.at_iteration(1, 10, passes)
    assert not model.at_iteration(10, 10, passes)
    assert passes.count == 1


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({"Loss__nullw": 0.05}, 0.05),
        ({"average_transcript_len": 2.0}, NUM_TOKENS / (6 * NUM_CLASSES)),
        (TRANSCRIPT, 0.0),
    ],
    ids=["given", "mean given", "transcript"],
)
def test_a_known_null_weight_takes_no_pass(keys: dict[str, Any], weight: float) -> None:
    model = build(**keys).train()
    passes = Passes(video(LABELS))
    assert not model.at_iteration(0, 10, passes)
    assert passes.count == 0
    assert model.criterion.null_weight == pytest.approx(weight)


def test_a_video_cannot_need_less_than_no_token() -> None:
    with pytest.raises(ConfigError, match=r"average_transcript_len is -2\.0; give 0 to count"):
        build(average_transcript_len=-2.0)


def test_a_resumed_run_finds_the_null_weight_again() -> None:
    passes = Passes(video(LABELS), video([1, 2], 1))

    def hook() -> FittingHook:
        return FittingHook(passes)

    def trainer(model: FACT) -> Any:
        return SimpleNamespace(model=model, iteration=4, max_iter=10, seed=0)

    first = build().train()
    started = hook()
    started.before_train(trainer(first))
    resumed, again = build().train(), hook()
    again.load_state_dict(started.state_dict())
    again.before_train(trainer(resumed))
    assert resumed.criterion.null_weight == first.criterion.null_weight
    assert passes.count == 2


def test_videos_beyond_the_tokens_are_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    model = build(FACT__ntoken=3).train()
    many = video(LABELS)
    model.at_iteration(0, 10, Passes(many, video([1, 2], 1)))
    assert "1 of 2 training videos" in caplog.text
    assert "FACT.ntoken to 5 or more" in caplog.text
    caplog.clear()
    assert total(model([many])).isfinite()
    assert not caplog.records


def test_standardised_features() -> None:
    model = build(FACT__standardize=True, Loss__nullw=0.1).train()
    samples = [video(LABELS), video([1, 2, 3], 1)]
    for sample in samples:
        sample["features"] = sample["features"] * 30 + 7
    passes = Passes(*samples)
    assert model.at_iteration(0, 10, passes)
    assert passes.count == 1
    features = torch.cat([sample["features"] for sample in samples])
    assert model.standardisation is not None
    torch.testing.assert_close(model.standardisation.mean, features.mean(0))
    plain = build(Loss__nullw=0.1).train()
    scaled = [
        {**sample, "features": (sample["features"] - features.mean(0)) / features.std(0, False)}
        for sample in samples
    ]
    torch.testing.assert_close(total(model(samples)), total(plain(scaled)), rtol=1e-4, atol=0)
    # The scale is in the checkpoint: only the other thing that is fitted takes a new pass.
    loaded = build(FACT__standardize=True)
    loaded.load_state_dict(model.state_dict())
    assert not loaded.at_iteration(4, 10, passes)
    assert loaded.is_fitted


def test_the_config_is_left_as_it_is() -> None:
    cfg = small_cfg()
    before = cfg.dump()
    cfg.freeze()
    FACT(cfg=cfg, input_dim=WIDTH, n_classes=NUM_CLASSES)
    assert cfg.dump() == before


def test_background_by_name() -> None:
    cfg = small_cfg(Loss__bgw=0.25)
    cfg.bg_class = ["idle"]
    names = ["a", "b", "idle", "c", "d", "e"]
    weight = FACT(cfg, WIDTH, NUM_CLASSES, classes=names).criterion.class_weight
    assert weight.tolist() == [1, 1, 0.25, 1, 1, 1]
    with pytest.raises(ConfigError, match="idle"):
        FACT(cfg, WIDTH, NUM_CLASSES, classes=["a", "b", "idel", "c", "d", "e"])


@pytest.fixture
def data_set(tmp_path: Path) -> str:
    """The path of a split of two videos, 12 features wide, with 6 classes."""
    for folder in ("features", "groundTruth", "splits"):
        (tmp_path / folder).mkdir()
    names = [f"class{number}" for number in range(NUM_CLASSES)]
    lines = [f"{number} {name}" for number, name in enumerate(names)]
    (tmp_path / "mapping.txt").write_text("\n".join(lines))
    for number in range(2):
        np.save(tmp_path / f"features/v{number}.npy", np.zeros((4, WIDTH), np.float32))
        (tmp_path / f"groundTruth/v{number}.txt").write_text("\n".join(names[:4]))
    split = tmp_path / "splits" / "train.split1.bundle"
    split.write_text("v0\nv1")
    return str(split)


def test_width_and_classes_of_the_training_set(data_set: str) -> None:
    cfg = small_cfg(
        MODEL__META_ARCHITECTURE="FACT", MODEL__DEVICE="cpu", DATASETS__TRAIN=[data_set]
    )
    model = build_model(cfg)
    assert isinstance(model, FACT)
    assert (model.input_dim, model.n_classes) == (WIDTH, NUM_CLASSES)
    assert model.classes == DatasetCatalog.metadata(data_set).classes
    cfg.FACT.n_classes = 7
    larger = build_model(cfg)
    assert isinstance(larger, FACT)
    assert larger.n_classes == 7
    assert larger.classes == []


def test_what_no_training_set_tells_must_be_given() -> None:
    cfg = small_cfg(MODEL__META_ARCHITECTURE="FACT", MODEL__DEVICE="cpu", DATASETS__TRAIN=[])
    with pytest.raises(DataError, match=r"FACT.input_dim is 0.*DATASETS.TRAIN is empty"):
        build_model(cfg)
    cfg.DATASETS.TRAIN = ("nowhere/splits/train.split1.bundle",)
    with pytest.raises(DataError, match=r"nowhere.*set FACT.input_dim and FACT.n_classes"):
        build_model(cfg)
    cfg.FACT.input_dim, cfg.FACT.n_classes = WIDTH, NUM_CLASSES
    assert isinstance(build_model(cfg), FACT)
    cfg.FACT.n_classes = -1
    with pytest.raises(ConfigError, match=r"FACT\.n_classes is -1; give 0"):
        build_model(cfg)
