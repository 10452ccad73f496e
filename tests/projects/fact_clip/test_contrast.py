"""The contrastive loss of frames and texts, against recorded figures and what follows from it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tests.golden_utils import load_case, rule_state_dict
from vidseg.projects.fact_clip.contrast import (
    ContrastiveLoss,
    contrastive_terms,
    infonce_contrastive_loss,
)
from vidseg.projects.fact_clip.projection import FeatureProjection

CASES = ("one_video", "missing_classes", "ignored_frames", "seen_only")
MODES = ("supcon", "exclude", "logsum")


def recorded(case: str) -> dict[str, torch.Tensor]:
    inputs = load_case("fact/clip_contrastive").inputs
    names = ("projected", "text", "labels", "tau", "candidates")
    return {name: inputs[f"{case}_{name}"] for name in names}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_golden_terms(case: str, mode: str) -> None:
    given = recorded(case)
    expected = load_case("fact/clip_contrastive").outputs
    v2t, t2v = contrastive_terms(
        given["projected"].double(),
        given["text"].double(),
        given["labels"],
        float(given["tau"]),
        t2v_mode=mode,
        candidates=given["candidates"],
    )
    found = {"v2t": v2t, "t2v": t2v, "total": (v2t + t2v) / 2}
    for name, value in found.items():
        assert float(value) == pytest.approx(float(expected[f"{case}_{mode}_{name}"]), abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_golden_gradient(case: str) -> None:
    given = recorded(case)
    projected = given["projected"].requires_grad_()
    loss = infonce_contrastive_loss(
        projected,
        given["text"],
        given["labels"],
        float(given["tau"]),
        candidates=given["candidates"],
    )
    loss.backward()
    expected = load_case("fact/clip_contrastive").outputs[f"{case}_supcon_grad_projected"]
    assert projected.grad is not None
    torch.testing.assert_close(projected.grad[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_golden_projection() -> None:
    case = load_case("fact/clip_contrastive")
    projection = FeatureProjection(32, 16, hidden_dim=48).eval()
    projection.load_state_dict(rule_state_dict(case.names_shapes.items()))
    found = projection(case.inputs["head_in"])
    torch.testing.assert_close(found, case.outputs["head_out"], rtol=1e-5, atol=1e-6)


def test_projection_gives_unit_vectors_of_any_width_even_of_zeros() -> None:
    projection = FeatureProjection(8, 5, hidden_dim=6).eval()
    torch.nn.init.zeros_(projection.fc2.bias)
    torch.nn.init.zeros_(projection.norm.bias)
    x = torch.cat([torch.randn(4, 8), torch.zeros(1, 8)])
    lengths = projection(x * 1e6).norm(dim=-1)
    torch.testing.assert_close(lengths[:4], torch.ones(4))
    assert projection(x).isfinite().all()


def test_video_to_text_is_cross_entropy_with_cosine_logits() -> None:
    frames, texts = torch.randn(20, 6), torch.randn(5, 6)
    labels = torch.randint(5, (20,))
    v2t, _ = contrastive_terms(frames, texts, labels, 0.1)
    logits = F.normalize(frames, dim=1) @ F.normalize(texts, dim=1).t() / 0.1
    torch.testing.assert_close(v2t, F.cross_entropy(logits, labels))


def test_one_frame_per_class_is_the_symmetric_loss_of_clip() -> None:
    frames, texts = torch.randn(7, 6), torch.randn(7, 6)
    labels = torch.randperm(7)
    logits = F.normalize(frames, dim=1) @ F.normalize(texts, dim=1)[labels].t() / 0.07
    own = torch.arange(7)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2
    torch.testing.assert_close(infonce_contrastive_loss(frames, texts, labels), expected)


@pytest.mark.parametrize("mode", MODES)
def test_frames_of_others_and_ignored_ones_change_nothing(mode: str) -> None:
    frames, texts = torch.randn(12, 1, 6), torch.randn(5, 6)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, -100, 3, 4, -100, 4, 3])
    seen = torch.tensor([0, 1, 2])
    all_of_them = infonce_contrastive_loss(frames, texts, labels, t2v_mode=mode, candidates=seen)
    clean = infonce_contrastive_loss(frames[:6], texts[:3], labels[:6], t2v_mode=mode)
    torch.testing.assert_close(all_of_them, clean)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("labels", [[-100, -100, -100], [1, 1, 1], [0, 1, 2]])
def test_gradients_are_finite_whatever_the_labels(mode: str, labels: list[int]) -> None:
    frames, texts = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    loss = infonce_contrastive_loss(frames, texts, torch.tensor(labels), t2v_mode=mode)
    loss.backward()
    assert frames.grad is not None
    assert frames.grad.isfinite().all()
    assert (max(labels) < 0) == (loss.item() == 0)


def test_batch_of_videos_is_their_frames_together() -> None:
    frames, texts, labels = torch.randn(9, 2, 4), torch.randn(3, 4), torch.randint(3, (9, 2))
    joined = infonce_contrastive_loss(frames.transpose(0, 1), texts, labels.t())
    torch.testing.assert_close(infonce_contrastive_loss(frames, texts, labels), joined)


def test_learnt_temperature_moves_and_stays_below_the_cap() -> None:
    loss = ContrastiveLoss(0.07, is_learnt=True)
    assert loss.logit_scale is not None
    assert float(loss.logit_scale.detach()) == pytest.approx(math.log(1 / 0.07))
    frames, texts, labels = torch.randn(9, 4), torch.randn(3, 4), torch.randint(3, (9,))
    torch.testing.assert_close(
        loss(frames, texts, labels), infonce_contrastive_loss(frames, texts, labels, 0.07)
    )
    loss(frames, texts, labels).backward()
    assert loss.logit_scale.grad is not None
    assert float(loss.logit_scale.grad) != 0
    torch.nn.init.constant_(loss.logit_scale, 9.0)
    assert torch.as_tensor(loss.temperature).item() == pytest.approx(0.01)
    assert not list(ContrastiveLoss(0.07).parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t2v_mode": "mean"}, "expected one of supcon, exclude, logsum"),
        ({"labels": torch.zeros(4, dtype=torch.long)}, "4 labels do not fit 3 frames"),
        ({"labels": torch.tensor([0, 5, 1])}, "label 5 has no text; there are 2"),
        ({"text_embeddings": torch.ones(2, 9)}, "frames are 4 wide, but texts 9"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], words: str) -> None:
    given = {
        "projected_embeddings": torch.ones(3, 4),
        "text_embeddings": torch.ones(2, 4),
        "labels": torch.tensor([0, 1, 1]),
        **change,
    }
    with pytest.raises(ValueError, match=words):
        infonce_contrastive_loss(**given)  # type: ignore[arg-type]
