"""Matching and every loss term on recorded tensors."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from tests.golden_utils import GoldenCase, load_case
from vidseg.projects.fact_clip.criterion import LossSettings, MatchCriterion
from vidseg.projects.fact_clip.losses import (
    MatchedFrames,
    a2f_loss,
    f2a_loss,
    frame_loss,
    smooth_loss,
    token_loss,
)
from vidseg.projects.fact_clip.matching import Match, soft_iou
from vidseg.projects.fact_clip.targets import FrameRows, VideoTargets

VARIANTS = pytest.mark.parametrize("variant", list("abcde"))


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return load_case("fact/criterion")


@dataclass
class Recorded:
    """One variant: its settings, inputs and outputs by name, and the criterion built from it."""

    criterion: MatchCriterion
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @classmethod
    def of(cls, case: GoldenCase, variant: str, **changes: Any) -> Recorded:
        config = yaml.safe_load(case.config.read_text())[variant]
        settings = LossSettings(**config["Loss"], **changes)
        arrays = [
            {name[2:]: value for name, value in part.items() if name.startswith(variant + "_")}
            for part in (case.inputs, case.outputs)
        ]
        return cls(MatchCriterion(settings, config["nclass"], config["bg_class"]), *arrays)

    @property
    def targets(self) -> VideoTargets:
        return VideoTargets.of(self.inputs["label"])

    @property
    def match(self) -> Match:
        return Match(self.outputs["match_token"], self.outputs["match_segment"])

    @property
    def pred_segments(self) -> Tensor:
        labels = self.inputs["pred_label"]
        return F.pad(labels[1:] != labels[:-1], (1, 0)).cumsum(0)

    def expected(self, name: str) -> Tensor:
        suffix = "_as_published" if self.criterion.settings.published_weights else "_aligned"
        return self.outputs.get(name, self.outputs.get(name + suffix))

    def attention_losses(self) -> dict[str, Tensor]:
        targets = self.targets
        matched = MatchedFrames.of(
            self.match,
            targets,
            self.criterion.class_weight[targets.transcript],
            published=self.criterion.settings.published_weights,
        )
        frames = FrameRows.of_frames(targets)
        a2f, f2a = self.inputs["a2f_attn_logit"][0], self.inputs["f2a_attn_logit"][0]
        of_segments = self.inputs["seg_a2f_logit"][0]
        rows = FrameRows.of_segments(targets, self.pred_segments, len(of_segments))
        return {
            "a2f_loss": a2f_loss(a2f, matched, frames),
            "f2a_loss": f2a_loss(f2a, matched, frames),
            "seg_a2f_loss": a2f_loss(of_segments, matched, rows),
            "seg_f2a_loss": f2a_loss(of_segments.T, matched, rows),
        }


@VARIANTS
def test_targets_and_weights(case: GoldenCase, variant: str) -> None:
    recorded = Recorded.of(case, variant)
    targets = recorded.targets
    assert torch.equal(targets.transcript, recorded.outputs["transcript"])
    assert torch.equal(targets.segments, recorded.outputs["seg_label"])
    weight = recorded.criterion.token_weight(targets.transcript, targets)
    expected = recorded.outputs["cweight"]
    # Token k is segment k: the null class has no tokens, so its weight is never read.
    end = -1 if recorded.criterion.settings.match == "seq" else None
    torch.testing.assert_close(weight[:end], expected[:end])
    by_segment = recorded.criterion.class_weight[targets.transcript]
    torch.testing.assert_close(by_segment, recorded.outputs["sweight"])


@VARIANTS
def test_match(case: GoldenCase, variant: str) -> None:
    recorded = Recorded.of(case, variant)
    attention = recorded.inputs["a2f_attn_logit"][0].softmax(-1)
    probs = recorded.inputs["action_clogit"][:, 0].softmax(-1)
    iou = soft_iou(attention, recorded.targets)
    torch.testing.assert_close(iou, recorded.outputs["soft_iou"], atol=1e-6, rtol=0)
    match = recorded.criterion.match(probs, attention, recorded.targets)
    assert pairs(match) == pairs(recorded.match)


@VARIANTS
def test_class_losses(case: GoldenCase, variant: str) -> None:
    recorded = Recorded.of(case, variant)
    block = SimpleNamespace(
        frame_logits=recorded.inputs["frame_clogit"],
        token_logits=recorded.inputs["action_clogit"][:, 0],
        segment_logits=recorded.inputs["seg_clogit"][:, 0],
        segment_index=recorded.pred_segments,
    )
    losses = recorded.criterion.class_losses(block, recorded.targets, recorded.match)
    close(losses["loss_frame"] * 2, recorded.outputs["frame_loss"])
    close(losses["loss_segment"] * 2, recorded.outputs["seg_frame_loss"])
    close(losses["loss_token"], recorded.outputs["action_token_loss"])


@VARIANTS
@pytest.mark.parametrize("published", [False, True])
def test_attention_losses(case: GoldenCase, variant: str, published: bool) -> None:
    recorded = Recorded.of(case, variant, published_weights=published)
    for name, value in recorded.attention_losses().items():
        close(value, recorded.expected(name))


def test_published_weights_differ_only_with_a_background_weight(case: GoldenCase) -> None:
    aligned, published = (
        Recorded.of(case, "c", published_weights=flag).attention_losses() for flag in (False, True)
    )
    assert all(not torch.isclose(aligned[name], published[name], rtol=1e-3) for name in aligned)


@pytest.mark.parametrize("name", ["x1", "x2", "big"])
def test_smooth_loss(case: GoldenCase, name: str) -> None:
    logits = case.inputs[f"smooth_{name}"]
    close(smooth_loss(logits), case.outputs[f"smooth_{name}"])
    log_probs = logits.log_softmax(-1)
    close(smooth_loss(log_probs, is_log_prob=True), case.outputs[f"smooth_logp_{name}"])


def test_pure_losses_agree_with_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 6, generator=generator)
    labels = torch.randint(6, (40,), generator=generator)
    weight = torch.rand(6, generator=generator)
    log_probs = logits.log_softmax(-1)
    close(token_loss(log_probs, labels, weight), F.cross_entropy(logits, labels, weight))
    rows = FrameRows.of_frames(VideoTargets.of(labels))
    expected = (weight[labels] * F.cross_entropy(logits, labels, reduction="none")).mean()
    close(frame_loss(log_probs, labels, weight[labels], rows), expected)


def pairs(match: Match) -> set[tuple[int, int]]:
    found = list(zip(match.tokens.tolist(), match.segments.tolist(), strict=True))
    assert len(found) == len(set(found))
    return set(found)


def close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
