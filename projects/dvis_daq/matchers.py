"""Who is who in the training of trackers: frame queries, new objects, objects of a whole clip.

Shapes: T frames, Q queries, N objects, K classes, h w mask pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.modeling.matcher import HungarianMatcher, Pairs, assign

from .memory import foreground_score
from .targets import ClipTargets

__all__ = ["FrameMatch", "match_first_appearances", "match_frames", "match_new_instances"]


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


@torch.no_grad()
def match_first_appearances(
    matcher: HungarianMatcher, logits: Tensor, masks: Tensor, targets: ClipTargets
) -> Pairs:
    """Matches each object once, on the first frame that shows it; the pair holds for the clip.

    This is the matcher of the sibling tracker, DVIS++ online, whose rows stay linked by
    construction; DVIS-DAQ itself matches with :func:`match_new_instances`.

    Args:
        matcher: its weights and points; points are drawn for frames with new objects only.
        logits: class logits in track order, ``(T, Q, K+1)``.
        masks: mask logits ``(T, Q, h, w)``.
        targets: of the same frames.

    Returns:
        Query and object rows: frame after frame, ascending by query within one. Objects for which
        no query is left are in no pair.

    Source: DVIS++ (Zhang et al., 2023), the online tracker's training.
    """
    visible = targets.visible
    is_first = visible & (visible.cumsum(dim=1) == 1)  # (N, T)
    is_free = torch.ones(logits.shape[1], dtype=torch.bool)
    sources, objects = [torch.zeros(0).long()], [torch.zeros(0).long()]
    for t in is_first.any(dim=0).nonzero()[:, 0].tolist():
        new, free = is_first[:, t].nonzero()[:, 0], is_free.nonzero()[:, 0]
        layer = logits[t : t + 1], masks[t : t + 1, :, None]
        points = matcher.draw(layer[0])
        cost = matcher.costs([layer], [targets.rows(new).frame(t)], points[None])[0, 0]
        row, column = assign(cost[free.numpy()])
        sources.append(free[row])
        objects.append(new[column])
        is_free[sources[-1]] = False
    return torch.cat(sources), torch.cat(objects)


def _by_object(src: Tensor, tgt: Tensor) -> Pairs:
    order = tgt.argsort()
    return src[order], tgt[order]
