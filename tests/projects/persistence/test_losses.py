"""What the model is trained on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.projects.persistence.token_samples import FULL, build, sample
from vidseg.projects.persistence.losses import (
    PersistenceCriterion,
    attention_losses,
    balanced_bce,
    contrastive_loss,
    duration_loss,
)


def test_both_classes_count_the_same_whatever_their_number() -> None:
    logits = torch.tensor([[1.0, 1.0, 1.0, -1.0, 7.0]])
    labels = torch.tensor([[1, 1, 1, 0, -1]])
    good, even = math.log1p(math.exp(-1)), math.log1p(math.exp(2))
    logits[0, 3] = 2.0
    torch.testing.assert_close(balanced_bce(logits, labels).item(), (good + even) / 2)
    plain = balanced_bce(logits, labels, balance=False).item()
    torch.testing.assert_close(plain, (3 * good + even) / 4)
    assert balanced_bce(logits, labels * 0 - 1) == 0


def test_attention_is_drawn_to_persistent_tokens() -> None:
    labels = torch.tensor([[1, 1, 0, -1], [1, 1, 1, -1]])
    last = torch.tensor([[0.3, 0.2, 0.1, 0.4], [0.0, 0.0, 0.0, 1.0]])
    summary = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]])
    losses = attention_losses(last, summary, labels)  # the second clip has one class only
    torch.testing.assert_close(losses["loss_attention_last"].item(), -math.log(0.5))
    expected = -(math.log(0.5) + math.log(0.25)) / 2
    torch.testing.assert_close(losses["loss_attention_summary"].item(), expected)
    assert list(attention_losses(last, None, labels)) == ["loss_attention_last"]
    for value in attention_losses(last, summary, labels * 0).values():
        assert value == 0
    assert all(v.isfinite() for v in attention_losses(last * 0, summary * 0, labels).values())


def test_contrast_is_infonce_over_all_other_tokens() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    groups = torch.tensor([0, 0, 1, 2])
    exp = (vectors @ vectors.T / 0.5).exp()
    rows = [
        -math.log(exp[i, j] / sum(exp[i, k] for k in range(4) if k != i))
        for i, j in ((0, 1), (1, 0))
    ]
    loss = contrastive_loss(vectors, groups, 0.5).item()
    assert loss == pytest.approx(sum(rows) / 2, rel=1e-5)
    assert contrastive_loss(vectors, torch.arange(4), 0.5) == 0
    assert contrastive_loss(vectors[:0], groups[:0], 0.5) == 0


def test_contrast_by_class_pulls_objects_of_other_clips() -> None:
    values = {}
    for kind in ("object", "class"):
        model = build(**{**FULL, "CONTRASTIVE": kind}).train()
        values[kind] = model([sample(4), sample(3, 1)])["loss_contrastive"].item()
    assert values["class"] > values["object"]
    with pytest.raises(ValueError, match="object, class"):
        PersistenceCriterion(contrastive="clip")


def test_unknown_durations_do_not_count() -> None:
    durations = torch.tensor([[0.5, 0.9]])
    known = duration_loss(durations, torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(known.item(), 0.5 - 0.05)
    assert duration_loss(durations, torch.full((1, 2), -1.0)) == 0


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("DURATION_WEIGHT", "loss_duration"),
        ("ATTENTION_WEIGHT", "loss_attention_summary"),
        ("ATTENTION_WEIGHT", "loss_attention_last"),
        ("CONTRASTIVE_WEIGHT", "loss_contrastive"),
        ("QUERY_WEIGHT", "loss_query_class"),
        ("QUERY_WEIGHT", "loss_query_presence"),
        ("QUERY_WEIGHT", "loss_query_duration"),
    ],
)
def test_weights_scale_their_losses(option: str, name: str) -> None:
    def value(weight: float) -> float:
        model = build(**{**FULL, option: weight}).train()
        return model([sample(4)])[name].item()

    assert value(0.5) > 0
    assert value(1.5) == pytest.approx(3 * value(0.5), rel=1e-4)


def test_a_baseline_has_one_loss() -> None:
    assert list(build().train()([sample(4)])) == ["loss_token"]
    assert build(CLASS_BALANCE=False).train()([sample(4)]) != build().train()([sample(4)])


NOTHING: dict[str, Any] = {"labels": -1, "object_ids": -1, "durations": -1.0}


@pytest.mark.parametrize("case", ["both classes", "one class", "nothing known", "no blob"])
def test_gradients_reach_every_parameter_in_every_batch(case: str) -> None:
    model = build(**FULL, TIME="learned").train()
    one = sample(0 if case == "no blob" else 1 if case == "one class" else 4)
    if case == "nothing known":
        one |= {name: torch.full_like(one[name], value) for name, value in NOTHING.items()}
        one["objects"] = {name: value[:0] for name, value in one["objects"].items()}
    losses = model([one])
    assert all(value.isfinite() for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if case == "both classes":
            assert parameter.grad.any(), name
