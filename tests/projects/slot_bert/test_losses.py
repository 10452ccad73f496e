"""Losses of slots and masks, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.projects.slot_bert.appearance import appearance_loss, position_loss, weigh_luma
from vidseg.projects.slot_bert.losses import (
    coverage_loss,
    distillation_loss,
    entropy_loss,
    frame_contrast,
    masked_slot_loss,
    orthogonality_loss,
    time_contrast,
)

B, T, K, D, P = 2, 3, 4, 5, 6


def soft_masks() -> Tensor:
    return torch.randn(B, T, K, P).mul(2).softmax(2)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def orthogonality_by_loop(slots: Tensor) -> Tensor:
    pairs = [
        cosine(frame[i], frame[j]).clamp(min=0) ** 2
        for frame in slots.flatten(0, 1)
        for i in range(K)
        for j in range(K)
        if i != j
    ]
    return mean(pairs)


def entropy_by_loop(masks: Tensor) -> Tensor:
    frames = []
    for frame in masks.flatten(0, 1):
        terms = [m * (m + 1e-8).log() for m in frame.flatten().unbind()]
        frames.append(-torch.stack(terms).sum() / (P * math.log(K)))
    return mean(frames)


def coverage_by_loop(masks: Tensor) -> Tensor:
    frames = masks.flatten(0, 1)
    dead = [(-frame[k].sum() * K / (0.1 * P)).exp() for frame in frames for k in range(K)]
    shares = [mean([frame[k].sum() / P for frame in frames]) for k in range(K)]
    entropy = -torch.stack([share * share.log() for share in shares]).sum()
    return mean(dead) - 0.1 * entropy / math.log(K)


def appearance_by_loop(masks: Tensor, colours: Tensor, scope: str) -> Tensor:
    clips = []
    for mask, colour in zip(masks, colours, strict=True):
        parts = range(T) if scope == "frame" else [slice(None)]
        total = mask.new_zeros(())
        for part in parts:
            m = mask[part].reshape(-1, K, P)
            c = colour[part].reshape(-1, 3, P)
            for k in range(K):
                area = m[:, k].sum()
                mu = (m[:, k, None] * c).sum((0, 2)) / (area + 1e-6)
                total = total + (m[:, k] * (c - mu[None, :, None]).square().sum(1)).sum()
        clips.append(total / (T * P))
    return mean(clips)


def assert_same(
    fast: Callable[[Tensor], Tensor], slow: Callable[[Tensor], Tensor], x: Tensor
) -> None:
    """Values and gradients agree."""
    results = []
    for function in (fast, slow):
        leaf = x.detach().clone().requires_grad_()
        value = function(leaf)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert results[0][1].abs().sum() > 0


def test_orthogonality() -> None:
    assert_same(orthogonality_loss, orthogonality_by_loop, torch.randn(B, T, K, D))
    basis = torch.eye(K)[:, :K]
    assert orthogonality_loss(torch.cat([basis, -basis])) == 0  # opposite ones cost nothing
    torch.testing.assert_close(orthogonality_loss(torch.ones(1, K, D)).item(), 1.0)
    assert orthogonality_loss(torch.randn(2, 1, D)).abs() < 1e-6


def test_entropy() -> None:
    assert_same(
        lambda x: entropy_loss(x.softmax(2)),
        lambda x: entropy_by_loop(x.softmax(2)),
        (torch.randn(B, T, K, P)),
    )
    one_hot = F.one_hot(torch.randint(K, (B, T, P)), K).transpose(-1, -2).float()
    assert entropy_loss(one_hot).abs() < 1e-6
    uniform = torch.full((B, T, K, P), 1 / K)
    torch.testing.assert_close(entropy_loss(uniform).item(), 1.0)
    assert entropy_loss(torch.ones(2, 1, P)).abs() < 1e-6  # of a single slot


def test_coverage() -> None:
    assert_same(
        lambda x: coverage_loss(x.softmax(2)),
        lambda x: coverage_by_loop(x.softmax(2)),
        (torch.randn(B, T, K, P)),
    )
    everywhere = torch.eye(K)[:, :, None].expand(K, K, P)  # another slot in each of K frames
    nowhere = everywhere[:1].expand(K, K, P)
    # Slots that take turns are spread over the batch; each is dead in most frames, though.
    spread, single = coverage_loss(everywhere), coverage_loss(nowhere)
    torch.testing.assert_close((single - spread).item(), 0.1)
    assert coverage_loss(torch.full((1, K, P), 1 / K)) < spread - 0.5


@pytest.mark.parametrize("scope", ["frame", "clip"])
def test_appearance(scope: str) -> None:
    colours = torch.rand(B, T, 3, P)
    assert_same(
        lambda x: appearance_loss(x.softmax(2), colours, scope=scope),
        lambda x: appearance_by_loop(x.softmax(2), colours, scope),
        torch.randn(B, T, K, P),
    )
    # The means move with the masks, so the gradient reaches colours as well.
    masks = soft_masks()
    assert_same(
        lambda x: appearance_loss(masks, x, scope=scope),
        lambda x: appearance_by_loop(masks, x, scope),
        colours,
    )


def test_appearance_of_flat_colours() -> None:
    owner = torch.randint(K, (B, T, P))
    masks = F.one_hot(owner, K).transpose(-1, -2).float()
    palette = torch.rand(K, 3)
    colours = palette[owner].transpose(-1, -2)
    for scope in ("frame", "clip"):
        assert appearance_loss(masks, colours, scope=scope).abs() < 1e-6
    # A colour that changes over time is flat in every frame, but not in the clip.
    changed = colours + torch.arange(T).view(1, T, 1, 1)
    assert appearance_loss(masks, changed, scope="frame").abs() < 1e-6
    assert appearance_loss(masks, changed, scope="clip") > 0.1
    # Unused slots change nothing, and neither does a far origin.
    more = torch.cat([masks, torch.zeros(B, T, 2, P)], 2)
    torch.testing.assert_close(
        appearance_loss(more, changed + 100, scope="clip"),
        appearance_loss(masks, changed, scope="clip"),
        atol=1e-4,
        rtol=1e-4,
    )
    with pytest.raises(ValueError, match="none of frame, clip"):
        appearance_loss(masks, colours, scope="video")


def test_appearance_alone_finds_what_is_flat() -> None:
    owner = torch.randint(3, (1, 1, 60))
    colours = torch.eye(3)[owner].transpose(-1, -2) + 0.02 * torch.randn(1, 1, 3, 60)
    logits = (0.1 * torch.randn(1, 1, 3, 60)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        appearance_loss(logits.softmax(2), colours).backward()
        optimizer.step()
    found = logits.argmax(2).flatten()
    pairs = set(zip(owner.flatten().tolist(), found.tolist(), strict=True))
    assert len(pairs) == 3  # one slot for each colour, and none for two


def test_appearance_prefers_the_right_cut() -> None:
    colours = torch.zeros(1, 1, 3, 8)
    colours[..., 4:] = 1.0
    right, wrong = torch.zeros(2, 1, 1, 2, 8)
    right[..., 0, :4] = right[..., 1, 4:] = 1
    wrong[..., 0, ::2] = wrong[..., 1, 1::2] = 1
    assert appearance_loss(right, colours).abs() < 1e-6
    torch.testing.assert_close(appearance_loss(wrong, colours).item(), 0.75)


def position_by_loop(masks: Tensor, places: Tensor, background: float) -> Tensor:
    frames = []
    for frame in masks.flatten(0, 1):
        total = background * frame[0].sum()
        for m in frame[1 if background else 0 :]:
            centre = (m[:, None] * places).sum(0) / (m.sum() + 1e-6)
            total = total + (m * (places - centre).square().sum(1)).sum()
        frames.append(total / P)
    return mean(frames)


@pytest.mark.parametrize("background", [0.0, 0.15])
def test_positions(background: float) -> None:
    places = torch.rand(P, 2) * 2 - 1
    assert_same(
        lambda x: position_loss(x.softmax(2), places, background=background),
        lambda x: position_by_loop(x.softmax(2), places, background),
        torch.randn(B, T, K, P),
    )
    masks = soft_masks()
    if not background:
        as_colours = appearance_loss(masks, places.mT[None, None])
        torch.testing.assert_close(position_loss(masks, places), as_colours)


def test_a_background_may_be_anywhere() -> None:
    places = torch.rand(100, 2) * 2 - 1
    masks = torch.zeros(1, 1, 3, 100)
    masks[:, :, 0] = 1
    torch.testing.assert_close(position_loss(masks, places, background=0.2).item(), 0.2)
    cut = torch.zeros(1, 1, 3, 100)  # two compact halves instead of one background
    cut[:, :, 1] = places[:, 0] < 0
    cut[:, :, 2] = places[:, 0] >= 0
    assert position_loss(cut, places) < position_loss(masks, places)
    assert position_loss(cut, places, background=0.2) > position_loss(masks, places, background=0.2)


def test_luma_is_the_mean_of_the_channels() -> None:
    colours = torch.rand(B, T, 3, P)
    assert weigh_luma(colours, 1.0) is colours
    light = colours.mean(2, keepdim=True)
    expected = (colours - light) + 0.3 * light
    torch.testing.assert_close(weigh_luma(colours, 0.3), expected)
    brighter = colours + torch.rand(B, T, 1, P)  # a pattern of light does not show without luma
    torch.testing.assert_close(weigh_luma(brighter, 0.0), weigh_luma(colours, 0.0))


def test_masked_slots() -> None:
    predicted, slots = torch.randn(B, T, K, D), torch.randn(B, T, K, D)
    hidden = torch.zeros(B, T, K, dtype=torch.bool)
    hidden[0, 1] = hidden[1, 2, 3] = True

    def by_loop(x: Tensor) -> Tensor:
        found = []
        for b, t, k in hidden.nonzero().tolist():
            ours, theirs = x[b, t, k], slots[b, t, k]
            content = F.smooth_l1_loss(F.layer_norm(ours, (D,)), F.layer_norm(theirs, (D,)))
            found.append(1 - cosine(ours, theirs) + 0.5 * content)
        return mean(found)

    assert_same(lambda x: masked_slot_loss(x, slots, hidden), by_loop, predicted)
    assert masked_slot_loss(slots * 3 + 0.0, slots, hidden) < 1e-4
    target = slots.clone().requires_grad_()
    loss = masked_slot_loss(predicted.requires_grad_(), target, hidden)
    loss.backward()
    assert target.grad is None
    nothing = masked_slot_loss(predicted, slots, hidden & False)
    assert nothing == 0
    assert nothing.requires_grad


def test_time_contrast() -> None:
    def by_loop(slots: Tensor) -> Tensor:
        found = []
        for t in range(T - 1):
            for b in range(B):
                for i in range(K):
                    others = [
                        cosine(slots[b, t, i], slots[c, t + 1, j]) / 0.1
                        for c in range(B)
                        for j in range(K)
                    ]
                    found.append(torch.stack(others).logsumexp(0) - others[b * K + i])
        return mean(found)

    slots = torch.randn(B, T, K, D)
    assert_same(time_contrast, by_loop, slots)
    assert time_contrast(slots[:, :1]) == 0
    still = torch.eye(B * K).view(B, 1, K, B * K).expand(-1, T, -1, -1)
    assert time_contrast(still) < 1e-3
    assert time_contrast(torch.stack([still[:, 0], still[:, 0].flip(1)], 1)) > 5


def test_frame_contrast() -> None:
    def by_loop(slots: Tensor) -> Tensor:
        found = []
        for frame in slots.flatten(0, 1):
            for i in range(K):
                logits = torch.stack([cosine(frame[i], frame[j]) for j in range(K)])
                found.append(logits.logsumexp(0) - logits[i])
        return mean(found)

    assert_same(frame_contrast, by_loop, torch.randn(B, T, K, D))
    alike = frame_contrast(torch.ones(1, K, D))
    torch.testing.assert_close(alike.item(), math.log(K))


def test_distillation() -> None:
    masks = soft_masks().flatten(0, 1)
    logits = torch.randn_like(masks).requires_grad_()
    loss = distillation_loss(logits, masks.requires_grad_())
    expected = F.kl_div(logits.log_softmax(1), masks, reduction="none").sum(1).mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    assert masks.grad is None
    assert logits.grad is not None
    assert distillation_loss(masks.detach().log() + 3.0, masks).abs() < 1e-5
