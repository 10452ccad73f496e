"""Contrastive losses of re-identification embeddings.

An item asks an anchor embedding to resemble its positives more than its negatives. Items come
from neighbouring frames (the form of the DVIS++ tracker) or from a memory of each object (the
form of CTVIS, which trains the frame segmenter).

Shapes: T frames, Q queries, N objects, C channels, M items, J candidates of an item.

Source: the losses are those of QDTrack (Pang et al., CVPR 2021, section 3.2), the memory is that
of CTVIS (Ying et al., ICCV 2023, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidseg.modeling.mask_losses import Rand
from vidseg.modeling.matcher import Pairs

from .positions import PositionMemory

__all__ = ["ContrastItems", "clip_items", "contrastive_losses", "memory_items", "object_queries"]

_POSITIVE, _NEGATIVE, _UNUSED = 1, 0, -1


@dataclass
class ContrastItems:
    """Who is compared with whom.

    Attributes:
        anchors: ``(M, C)``.
        candidates: ``(M, J, C)``.
        labels: int64 ``(M, J)``: 1 for a positive, 0 for a negative, -1 for neither.
    """

    anchors: Tensor
    candidates: Tensor
    labels: Tensor

    @classmethod
    def join(cls, parts: Sequence[ContrastItems]) -> ContrastItems:
        """Joins items of several clips, which have equally many candidates."""
        return cls(
            torch.cat([part.anchors for part in parts]),
            torch.cat([part.candidates for part in parts]),
            torch.cat([part.labels for part in parts]),
        )


def contrastive_losses(items: ContrastItems) -> dict[str, Tensor]:
    """Gives both losses, each averaged over the items; 0, with a graph, without any.

    Returns:
        ``loss_reid``: ``log(1 + sum exp(n - p))`` over all pairs of a negative's and a positive's
        dot product with the anchor. ``loss_aux_reid``: mean squared difference between the cosine
        similarity of a candidate and its label.
    """
    labels = items.labels
    used = labels != _UNUSED
    with torch.autocast(device_type=labels.device.type, enabled=False):
        anchors, candidates = items.anchors.float(), items.candidates.float()
        dots = torch.einsum("mc,mjc->mj", anchors, candidates)
        positive, negative = labels == _POSITIVE, labels == _NEGATIVE
        # Only differences count; large dot products would lose them to rounding in the sums.
        largest = torch.finfo(dots.dtype).max
        dots = dots - dots.detach().masked_fill(~positive, largest).amin(dim=1, keepdim=True)
        # The sum over pairs is the product of a sum over negatives and one over positives.
        log_sum = _log_sum(dots, negative) + _log_sum(-dots, positive)
        cosines = F.cosine_similarity(anchors[:, None], candidates, dim=-1)  # (M, J)
        errors = (cosines - labels).square().masked_fill(~used, 0.0).sum(1)
        errors = errors / used.sum(1).clamp(min=1)
        num_items = max(len(anchors), 1)
        return {
            "loss_reid": F.softplus(log_sum).sum() / num_items,
            "loss_aux_reid": errors.sum() / num_items,
        }


def _log_sum(values: Tensor, chosen: Tensor) -> Tensor:
    """Gives the log of the sum of exponentials of the chosen values, ``(M,)``."""
    # Not -inf: a row without any chosen value would have no gradient but NaN.
    return values.masked_fill(~chosen, torch.finfo(values.dtype).min).logsumexp(dim=1)


def object_queries(pairs: Sequence[Pairs], present: Tensor, *, match_absent: bool) -> Tensor:
    """Tells which query shows each object on each frame.

    Args:
        pairs: matched query and object rows of every frame.
        present: whether the object is on the frame, bool ``(N, T)`` on the CPU.
        match_absent: whether the object rows count all objects, or only those of the frame.

    Returns:
        int64 ``(N, T)``; -1 where the object is absent, or no query was left for it.
    """
    queries = torch.full(present.shape, -1)
    for t, (src, tgt) in enumerate(pairs):
        rows = tgt if match_absent else present[:, t].nonzero()[:, 0][tgt]
        queries[rows, t] = src
    return queries.masked_fill(~present, -1)


def clip_items(references: Tensor, queries: Tensor) -> ContrastItems:
    """Contrasts each matched query with all queries of the frame before, and of the one after.

    The positive is the same query, so rows must be linked over the frames. The first frame has no
    anchors.

    This is the form of the sibling tracker, DVIS++ online; DVIS-DAQ's own training has no
    contrastive loss.

    Args:
        references: embeddings in track order, ``(T, Q, C)``.
        queries: matched rows, int64 ``(n,)``.

    Source: DVIS++ (Zhang et al., 2023), the tracker's training.
    """
    num_queries = references.shape[1]
    queries = queries.to(references.device)
    later = torch.arange(1, len(references), device=references.device)
    inner = later[:-1]
    frames, others = torch.cat([later, inner]), torch.cat([later - 1, inner + 1])  # (P,)
    candidates = references[others][:, None].expand(-1, len(queries), -1, -1)  # (P, n, Q, C)
    labels = F.one_hot(queries, num_queries).repeat(len(frames), 1)
    return ContrastItems(
        references[frames][:, queries].flatten(0, 1), candidates.flatten(0, 1), labels
    )


def memory_items(
    embeds: Tensor,
    queries: Tensor,
    *,
    num_negatives: int,
    use_mean: bool,
    rand: Rand = torch.rand,
) -> ContrastItems:
    """Contrasts each object with what is remembered of it and the queries of the frame before.

    The positive is the object's last embedding or, if ``use_mean``, in half of the cases the
    similarity-guided running mean of all earlier ones. An object that was not seen before has its
    next embedding as the positive. Negatives are the queries of the frame before except the
    object's own, hence the first frame has no anchors.

    Args:
        embeds: re-identification embeddings ``(T, Q, C)``.
        queries: which query shows each object, int64 ``(N, T)`` on the CPU; -1 for none.
        num_negatives: negatives of an item at most; drawn at random where there are more.
        use_mean: whether the running mean is a positive, too.
        rand: stands in for ``torch.rand`` when a recorded stream is replayed; gives one number
            per item whose object was seen before, frame after frame, then what draws negatives.

    Note:
        As in the published code an object seen for the first time is passed over if as many later
        frames lack it as frames went before.
    """
    present = queries >= 0
    positive_frames = _positive_frames(present)
    frames, objects = (positive_frames.T >= 0).nonzero(as_tuple=True)  # frame after frame, (M,)
    sources = positive_frames[objects, frames]
    from_mean = torch.zeros(len(frames), dtype=torch.bool)
    if use_mean:
        remembered = sources < frames
        from_mean[remembered] = rand(int(remembered.sum())) > 0.5
    negatives = _negatives(queries[objects, frames - 1], embeds.shape[1], num_negatives, rand)
    labels = torch.where(negatives, _NEGATIVE, _UNUSED)
    labels = F.pad(labels, (1, 0), value=_POSITIVE)  # (M, 1+Q)

    device = embeds.device
    frames, objects, sources = frames.to(device), objects.to(device), sources.to(device)
    every_frame = torch.arange(len(embeds), device=device)
    own = embeds[every_frame, queries.clamp(min=0).to(device)]  # (N, T, C)
    positives = own[objects, sources]  # (M, C)
    if use_mean:
        means = _running_means(own, present.to(device))[objects, frames]
        positives = torch.where(from_mean.to(device)[:, None], means.to(own.dtype), positives)
    candidates = torch.cat([positives[:, None], embeds[frames - 1]], dim=1)  # (M, 1+Q, C)
    return ContrastItems(own[objects, frames], candidates, labels.to(device))


def _positive_frames(present: Tensor) -> Tensor:
    """Tells from which frame the positive of an object comes; -1 for no item.

    Args:
        present: ``(N, T)``.

    Returns:
        int64 ``(N, T)``: the last frame with the object, or else the next one.
    """
    num_frames = present.shape[1]
    index = torch.arange(num_frames)
    seen = torch.where(present, index, -1).cummax(dim=1).values
    before = F.pad(seen[:, :-1], (1, 0), value=-1)
    coming = torch.where(present, index, num_frames).flip(1).cummin(dim=1).values.flip(1)
    after = F.pad(coming[:, 1:], (0, 1), value=num_frames)
    absent = (~present).long()
    num_absent_later = absent.sum(1, keepdim=True) - absent.cumsum(1)
    passed_over = (after == num_frames) | (num_absent_later == index)
    frames = torch.where(before >= 0, before, after.masked_fill(passed_over, -1))
    return frames.masked_fill(~present | (index == 0), -1)


def _negatives(own: Tensor, num_queries: int, limit: int, rand: Rand) -> Tensor:
    """Chooses the negatives among the queries of a frame, bool ``(M, Q)``.

    Args:
        own: the object's query there, which is none, int64 ``(M,)``; -1 if it is absent.
        num_queries: Q.
        limit: negatives at most.
        rand: gives ``(M, Q)`` numbers if the limit can be exceeded.
    """
    negatives = torch.arange(num_queries) != own[:, None]
    if limit >= num_queries:
        return negatives
    order = rand(len(own), num_queries).masked_fill(~negatives, 2.0)  # others are below 1
    drawn = torch.zeros_like(negatives).scatter(1, order.topk(limit, largest=False).indices, True)
    return negatives & drawn


def _running_means(embeds: Tensor, present: Tensor) -> Tensor:
    """Gives the similarity-guided mean of all embeddings before each frame, ``(N, T, C)``.

    Args:
        embeds: of each object, ``(N, T, C)``.
        present: whether they count, ``(N, T)``.
    """
    num_objects, num_frames, channels = embeds.shape
    memory = PositionMemory.empty(num_objects, channels, embeds.device)
    means = []
    for t in range(num_frames):
        means.append(memory.positions)
        memory = memory.update(embeds[:, t], present[:, t])
    return torch.stack(means, dim=1)
