"""Losses against their dense definitions, and where a video leaves little or nothing to learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vidseg.projects.fact_clip.blocks import BlockOutput
from vidseg.projects.fact_clip.criterion import LossSettings, MatchCriterion
from vidseg.projects.fact_clip.losses import (
    MatchedFrames,
    a2f_loss,
    f2a_loss,
    frame_loss,
    smooth_loss,
    token_loss,
)
from vidseg.projects.fact_clip.matching import Match
from vidseg.projects.fact_clip.segments import Segments, find_segments
from vidseg.projects.fact_clip.targets import FrameRows, VideoTargets

C, M = 5, 6
LABELS = torch.tensor([1] * 6 + [0] * 5 + [1] * 4 + [3] * 8 + [2])
PREDICTED = torch.tensor([0] * 3 + [1] * 9 + [2] * 5 + [3] * 7)
PAIRS = Match(torch.tensor([4, 0, 4, 2, 5]), torch.tensor([0, 3, 2, 1, 4]))


def dense(targets: VideoTargets, segments: Segments | None) -> Tensor:
    """Targets as a table ``(N, S)``: fractions of the rows' labelled frames."""
    table = torch.zeros(targets.num_frames, len(targets.transcript))
    table[targets.frames, targets.segments] = 1
    if segments is not None:
        table = torch.zeros(len(segments), table.shape[1]).index_add(0, segments.index, table)
    return table / table.sum(1, keepdim=True).clamp_min(1e-9)


def rows_of(targets: VideoTargets, segments: Segments | None) -> FrameRows:
    if segments is None:
        return FrameRows.of_frames(targets)
    return FrameRows.of_segments(targets, segments.index, len(segments))


@pytest.mark.parametrize("is_labelled", [True, False], ids=["labelled", "gaps"])
@pytest.mark.parametrize("by_segments", [False, True], ids=["frames", "segments"])
@pytest.mark.parametrize("num_pairs", [5, 3], ids=["all", "few"])
def test_attention_losses_are_their_dense_definitions(
    is_labelled: bool, by_segments: bool, num_pairs: int
) -> None:
    labels = LABELS.clone()
    if not is_labelled:
        labels[[0, 5, 17, 18, 19, 20, 21]] = -100
        labels[PREDICTED == 2] = -100
    targets = VideoTargets.of(labels)
    match = Match(PAIRS.tokens[:num_pairs], PAIRS.segments[:num_pairs])
    segments = find_segments(PREDICTED) if by_segments else None
    table = dense(targets, segments)  # (N, S)
    weight = torch.rand(len(targets.transcript))
    a2f = torch.randn(len(table), M, requires_grad=True)
    f2a = torch.randn(M, len(table), requires_grad=True)
    matched = MatchedFrames.of(match, targets, weight)
    rows = rows_of(targets, segments)

    wanted = (table * weight)[:, match.segments]  # (N, pairs)
    is_read = table.sum(1) > 0
    expected = (
        -(wanted * a2f[:, match.tokens].log_softmax(1)).sum() / table.sum(),
        -(wanted[is_read] * f2a.T[is_read][:, match.tokens].log_softmax(0)).sum() / table.sum(),
    )
    for found, plain in zip(
        (a2f_loss(a2f, matched, rows), f2a_loss(f2a, matched, rows)), expected, strict=True
    ):
        torch.testing.assert_close(found, plain)
        ours = torch.autograd.grad(found, (a2f, f2a), allow_unused=True)
        theirs = torch.autograd.grad(plain, (a2f, f2a), allow_unused=True)
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other)


def test_half_precision_logits_are_scored_in_full() -> None:
    targets = VideoTargets.of(LABELS)
    rows = FrameRows.of_frames(targets)
    matched = MatchedFrames.of(PAIRS, targets, torch.ones(5))
    half = (8 * torch.randn(len(LABELS), M)).bfloat16().requires_grad_()
    full = half.detach().float().requires_grad_()
    for loss in (a2f_loss, lambda x, *rest: f2a_loss(x.T, *rest), lambda x, *_: smooth_loss(x)):
        found, expected = loss(half, matched, rows), loss(full, matched, rows)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
        ours, theirs = (
            torch.autograd.grad(value, leaf)[0] for value, leaf in ((found, half), (expected, full))
        )
        torch.testing.assert_close(ours, theirs.bfloat16())


@pytest.mark.parametrize("by_segments", [False, True], ids=["frames", "segments"])
def test_frame_loss_is_its_dense_definition(by_segments: bool) -> None:
    labels = LABELS.clone()
    labels[10:13] = -100
    targets = VideoTargets.of(labels)
    segments = find_segments(PREDICTED) if by_segments else None
    table = dense(targets, segments)  # (N, S)
    log_probs = torch.randn(len(table), C).log_softmax(1)
    weight = torch.rand(C)
    expected = -(table * (weight * log_probs)[:, targets.transcript]).sum() / table.sum()
    rows = rows_of(targets, segments)
    found = frame_loss(log_probs, targets.labels, weight[targets.labels], rows)
    torch.testing.assert_close(found, expected)


def test_smooth_loss_is_its_definition_with_its_gradient() -> None:
    logits = (4 * torch.randn(2, 9, 4)).requires_grad_()
    log_probs = logits.log_softmax(-1)
    plain = (log_probs[:, 1:] - log_probs[:, :-1]).square().clamp(0, 16).mean()
    assert ((log_probs[:, 1:] - log_probs[:, :-1]).abs() > 4).any()
    found = smooth_loss(logits)
    torch.testing.assert_close(found, plain)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (found, plain))
    torch.testing.assert_close(ours, theirs)


def test_smooth_loss_of_one_step_is_zero() -> None:
    logits = torch.randn(1, 4, requires_grad=True)
    loss = smooth_loss(logits)
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def block(num_frames: int, segments: Segments | None = None, num_tokens: int = M) -> BlockOutput:
    """A block's output whose logits are leaves."""
    num_rows = num_frames if segments is None else len(segments)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, requires_grad=True)

    a2f = leaf(num_rows, num_tokens)
    return BlockOutput(
        frame_features=torch.zeros(num_frames, 1),
        token_features=torch.zeros(num_tokens, 1),
        frame_logits=leaf(num_frames, C),
        token_logits=leaf(num_tokens, C + 1),
        f2a_logits=leaf(num_tokens, num_rows),
        a2f_logits=a2f,
        a2f_weights=a2f.detach().softmax(1),
        segments=segments,
        segment_logits=None if segments is None else leaf(num_rows, C),
    )


def leaves(output: BlockOutput) -> list[Tensor]:
    named = ("frame_logits", "token_logits", "f2a_logits", "a2f_logits", "segment_logits")
    return [getattr(output, name) for name in named if getattr(output, name) is not None]


EDGES = {
    "one frame": [2],
    "two frames": [2, 3],
    "background only": [0] * 20,
    "more segments than tokens": [0, 1, 2, 3, 4] * 4,
    "gaps": [1, -100, 1, -100, -100, 2, 2, -100],
}


@pytest.mark.parametrize("match", ["o2o", "o2m", "seq"])
@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("bgw", [1.0, 0.0])
def test_losses_and_gradients_are_finite(match: str, name: str, bgw: float) -> None:
    labels = torch.tensor(EDGES[name])
    criterion = MatchCriterion(LossSettings(match=match, sw=1.0, bgw=bgw), C)
    of_segments = find_segments(torch.arange(len(labels)) // 3)
    blocks = [block(len(labels), num_tokens=4), block(len(labels), of_segments, num_tokens=4)]
    losses = criterion(blocks, labels)
    expected = {"frame", "token", "a2f", "f2a", "segment", "smooth"}
    assert set(losses) == {f"loss_{part}" for part in expected}
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() for value in losses.values())
    for leaf in [leaf for output in blocks for leaf in leaves(output)]:
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_without_labels_nothing_is_learnt() -> None:
    labels = torch.full((12,), -100)
    blocks = [block(12), block(12, find_segments(torch.arange(12) // 5))]
    losses = MatchCriterion(LossSettings(), C)(blocks, labels)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value == 0 for value in losses.values())
    for output in blocks:
        assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves(output))


@pytest.mark.parametrize("by_segments", [False, True], ids=["frames", "segments"])
def test_ignored_frames_count_as_if_they_were_cut_out(by_segments: bool) -> None:
    labels = LABELS.clone()
    labels[6:11] = -100  # one segment of five, so that the others keep their ends
    labels[20] = -100
    labels[21:23] = 2
    labels[23] = 4
    kept = (labels >= 0).nonzero()[:, 0]
    segments = find_segments(PREDICTED) if by_segments else None
    whole = block(len(labels), segments)
    assert whole.a2f_logits is not None
    assert whole.f2a_logits is not None
    cut = BlockOutput(
        whole.frame_features[kept],
        whole.token_features,
        whole.frame_logits[kept],
        whole.token_logits,
        whole.f2a_logits if segments else whole.f2a_logits[:, kept],
        whole.a2f_logits if segments else whole.a2f_logits[kept],
        a2f_weights=None if segments or whole.a2f_weights is None else whole.a2f_weights[kept],
        segments=find_segments(PREDICTED[kept]) if segments else None,
        segment_logits=whole.segment_logits,
    )
    if segments:
        cut.a2f_weights = whole.a2f_weights
    criterion = MatchCriterion(LossSettings(nullw=0.2, bgw=0.5), C)
    # The two runs of class 1 meet where the segment between them is cut out.
    apart = labels.clone()
    apart[11:15] = 3
    losses, expected = criterion([whole], apart), criterion([cut], apart[kept])
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])


def test_masked_classes_are_not_trained() -> None:
    labels = torch.tensor([0] * 5 + [1] * 4 + [-100] * 3 + [3] * 5)
    seen = torch.tensor([True, True, False, True, False])
    whole = block(len(labels), find_segments(torch.arange(len(labels)) // 4))
    assert whole.segment_logits is not None
    raw = {
        "frame_logits": whole.frame_logits,
        "token_logits": whole.token_logits,
        "segment_logits": whole.segment_logits,
    }
    for name, logits in raw.items():
        mask = seen if logits.shape[1] == C else torch.cat([seen, torch.tensor([True])])
        setattr(whole, name, logits.masked_fill(~mask, -torch.inf))
    criterion = MatchCriterion(LossSettings(sw=1.0, nullw=0.2), C)
    losses = criterion([whole], labels)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() for value in losses.values())
    for logits in raw.values():
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert not logits.grad[:, :C][:, ~seen].any()
        assert logits.grad[:, :C][:, seen].any()
    # As if these classes did not exist, but for the divisor of the smoothing loss.
    numbers = seen.cumsum(0) - 1
    few = BlockOutput(
        whole.frame_features,
        whole.token_features,
        raw["frame_logits"][:, seen],
        raw["token_logits"][:, [*seen.nonzero()[:, 0], C]],
        whole.f2a_logits,
        whole.a2f_logits,
        a2f_weights=whole.a2f_weights,
        segments=whole.segments,
        segment_logits=raw["segment_logits"][:, seen],
    )
    renamed = torch.where(labels >= 0, numbers[labels.clamp_min(0)], labels)
    expected = MatchCriterion(LossSettings(sw=1.0, nullw=0.2), 3)([few], renamed)
    expected["loss_smooth"] = expected["loss_smooth"] * 3 / C
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])


def test_tokens_are_weighted_by_the_class_they_are_to_be() -> None:
    criterion = MatchCriterion(LossSettings(bgw=0.5, nullw=0.1), C, [0])
    targets = VideoTargets.of(LABELS)
    output = block(len(LABELS))
    losses = criterion.class_losses(output, targets, PAIRS)
    classes = torch.tensor([3, 5, 0, 5, 1, 2])  # of tokens 0 to 5; token 4 serves both runs of 1
    weight = torch.tensor([0.5, 1, 1, 1, 1, 0.1])
    expected = torch.nn.functional.cross_entropy(output.token_logits, classes, weight)
    torch.testing.assert_close(losses["loss_token"], expected)
    assert torch.equal(criterion.token_classes(M, targets, PAIRS), classes)
    torch.testing.assert_close(
        token_loss(output.token_logits.log_softmax(1), classes, weight), expected
    )


def test_unknown_null_weight_follows_from_the_video() -> None:
    criterion = MatchCriterion(LossSettings(), C)
    assert criterion.null_weight is None
    targets = VideoTargets.of(LABELS)  # 5 segments
    weight = criterion.token_weight(torch.zeros(20, dtype=torch.int64), targets)
    torch.testing.assert_close(weight[-1], torch.tensor(20 / (15 * C)))
    criterion.set_mean_matched(20, 12.5)
    weight = criterion.token_weight(torch.zeros(20, dtype=torch.int64), targets)
    torch.testing.assert_close(weight[-1], torch.tensor(20 / (7.5 * C)))


class _Largest(TorchDispatchMode):
    """Notes the size of the largest array that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, Tensor):
                self.numel = max(self.numel, part.numel())
        return result


@pytest.mark.parametrize("match", ["o2o", "o2m"])
@pytest.mark.parametrize("by_segments", [False, True], ids=["frames", "segments"])
def test_no_array_is_larger_than_frames_times_tokens(match: str, by_segments: bool) -> None:
    num_frames, num_tokens = 2000, 50
    labels = torch.arange(num_frames) // 40 % C  # 50 segments
    segments = find_segments(torch.arange(num_frames) // 2) if by_segments else None
    output = block(num_frames, segments, num_tokens)
    criterion = MatchCriterion(LossSettings(match=match, sw=1.0), C)
    with _Largest() as largest:
        torch.stack(list(criterion([output], labels).values())).sum().backward()
    assert largest.numel <= num_frames * num_tokens
