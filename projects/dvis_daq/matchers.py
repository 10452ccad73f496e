"""Who is who in the training of the tracker: matching of frame queries and of new objects.

Shapes: T frames, Q queries, N objects, K classes, h w mask pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.modeling.matcher import HungarianMatcher, Pairs, assign

from .memory import foreground_score
from .targets import ClipTargets

__all__ = ["FrameMatch", "match_frames", "match_new_instances"]


@dataclass
class FrameMatch:
    """How the queries of one frame relate to the visible objects; everything on the CPU.

    Attributes:
        pairs: query and object rows, one per matched visible object, ascending by object.
        nearest: object of smallest cost for each query, the matched one where there is one, and
            -1 where ``valid`` is false or nothing is visible, int64 ``(Q,)``.
        valid: matched, or foreground by its score, bool ``(Q,)``.
    """

    pairs: Pairs
    nearest: Tensor
    valid: Tensor


@torch.no_grad()
def match_frames(
    matcher: HungarianMatcher,
    logits: Tensor,
    masks: Tensor,
    targets: ClipTargets,
    *,
    valid_threshold: float,
) -> list[FrameMatch]:
    """Matches the segmenter's queries of every frame to the objects visible there.

    Args:
        matcher: its weights and points.
        logits: class logits ``(T, Q, K+1)``.
        masks: mask logits ``(T, Q, h, w)``.
        targets: of the same frames.
        valid_threshold: foreground score above which an unmatched query counts as valid.
    """
    points = matcher.draw(logits)
    frames = [targets.frame(t) for t in range(len(logits))]
    costs = matcher.costs([(logits, masks[:, :, None])], frames, points[None])[0]
    confident = (foreground_score(logits) > valid_threshold).cpu()  # (T, Q)
    matches = []
    for t, valid in enumerate(confident):
        seen = targets.visible[:, t].nonzero()[:, 0]
        cost = costs[t][:, seen.numpy()]
        src, column = assign(cost)
        src, tgt = _by_object(src, seen[column])
        nearest = torch.full_like(valid, -1, dtype=torch.int64)
        if len(seen):
            nearest = seen[torch.from_numpy(cost).argmin(dim=1)]
        nearest[src] = tgt
        valid = valid.clone()
        valid[src] = True
        matches.append(FrameMatch((src, tgt), nearest.masked_fill(~valid, -1), valid))
    return matches


@torch.no_grad()
def match_new_instances(
    matcher: HungarianMatcher,
    logits: Tensor,
    masks: Tensor,
    targets: ClipTargets,
    frame: int,
    *,
    tracked: Pairs,
) -> Pairs:
    """Keeps the tracked pairs and assigns objects that appear to the anchors.

    Args:
        matcher: its weights and points; no points are drawn when nothing appears.
        logits: class logits of all n queries, ``(n, K+1)``.
        masks: mask logits of the anchors only, ``(A, h, w)``: the last A queries.
        targets: objects of the clip.
        frame: which frame of it this is.
        tracked: query and object rows of the pairs that stay.

    Returns:
        The tracked pairs, then the new ones ascending by object.
    """
    is_new = targets.visible[:, frame].clone()
    is_new[tracked[1]] = False
    new = is_new.nonzero()[:, 0]
    if len(new) == 0:
        return tracked
    first_anchor = len(logits) - len(masks)
    layer = logits[None, first_anchor:], masks[None, :, None]
    points = matcher.draw(layer[0])
    cost = matcher.costs([layer], [targets.rows(new).frame(frame)], points[None])[0, 0]
    src, column = assign(cost)
    src, tgt = _by_object(src + first_anchor, new[column])
    return torch.cat([tracked[0], src]), torch.cat([tracked[1], tgt])


def _by_object(src: Tensor, tgt: Tensor) -> Pairs:
    order = tgt.argsort()
    return src[order], tgt[order]
