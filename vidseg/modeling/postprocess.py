"""From queries to video instances: linking, selection, encoding.

Shapes: T frames, Q queries, N tracks, n selected rows, C channels, K classes, h w mask pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.assignment import linear_sum_assignment
from vidseg.rle import RLE

from .mask_encoding import Size, encode_masks

__all__ = [
    "foreground_confidence",
    "link_queries",
    "link_step",
    "masks_to_rle",
    "select_instances",
]


def link_step(previous: Tensor, current: Tensor) -> Tensor:
    """Finds for every row of the previous frame its query in the current one.

    The assignment maximises the summed cosine similarity.

    Args:
        previous: ``(Q, C)``, already in track order.
        current: ``(Q, C)``.

    Returns:
        int64 ``(Q,)`` on the device of ``current``: ``current[order]`` is in track order.

    Source: MinVIS (Huang et al., NeurIPS 2022), section 3.2.
    """
    similarity = F.normalize(previous.float(), dim=1) @ F.normalize(current.float(), dim=1).T
    _, order = linear_sum_assignment(similarity.detach().cpu().numpy(), maximize=True)
    return torch.from_numpy(order).to(device=current.device, dtype=torch.int64)


def link_queries(embeds: Tensor) -> Tensor:
    """Links the queries of a video frame by frame.

    Args:
        embeds: ``(T, Q, C)``.

    Returns:
        int64 ``(T, Q)``: query of every frame that continues query q of the first frame.
    """
    num_frames, num_queries = embeds.shape[:2]
    if num_frames == 0:
        return torch.empty(0, num_queries, dtype=torch.int64, device=embeds.device)
    order = [torch.arange(num_queries, device=embeds.device)]
    for previous, current in pairwise(embeds):
        order.append(link_step(previous[order[-1]], current))
    return torch.stack(order)


def select_instances(
    logits: Tensor,
    max_num: int,
    *,
    one_label_per_track: bool = False,
    quality: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Picks the best (track, class) pairs.

    Args:
        logits: class logits ``(N, K + 1)``, the last one is "no object".
        max_num: how many pairs at most.
        one_label_per_track: keep only the best class of a track; published models return a track
            again for every class that ranks high enough.
        quality: factor on the scores of a track, ``(N,)``; it orders the picked pairs, which are
            picked by their class alone.

    Returns:
        Scores float32, labels int64 and rows of the tracks int64, each ``(n,)`` with n up to
        ``max_num``, best first.
    """
    scores = logits.float().softmax(-1)[:, :-1]  # (N, K)
    values, labels, rows = _best_pairs(scores, max_num, one_label_per_track=one_label_per_track)
    if quality is None:
        return values, labels, rows
    values, order = (values * quality.float()[rows]).sort(descending=True, stable=True)
    return values, labels[order], rows[order]


def _best_pairs(
    scores: Tensor, max_num: int, *, one_label_per_track: bool
) -> tuple[Tensor, Tensor, Tensor]:
    num_classes = scores.shape[1]
    if one_label_per_track:
        best, labels = scores.max(dim=1) if len(scores) else (scores.sum(1), scores.sum(1).long())
        best, rows = best.sort(descending=True, stable=True)
        return best[:max_num], labels[rows[:max_num]], rows[:max_num]
    values, places = scores.flatten().sort(descending=True, stable=True)
    places = places[:max_num]
    rows = torch.div(places, num_classes, rounding_mode="floor")
    return values[:max_num], places % num_classes, rows


def foreground_confidence(mask_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Sums what a mask quality is made of, so that it can be gathered frame by frame.

    Args:
        mask_logits: ``(N, ...)``.

    Returns:
        Summed probability of the foreground pixels and their number, each float32 ``(N,)``; the
        quality is their ratio (0 for an empty mask).

    Source: Mask2Former, appendix on instance inference.
    """
    flat = mask_logits.flatten(1).float()
    foreground = flat > 0
    total = torch.where(foreground, flat.sigmoid(), 0).sum(1)
    return total, foreground.sum(1).float()


def masks_to_rle(
    mask_logits: Tensor,
    padded_size: Size,
    image_size: Size,
    output_size: Size,
    *,
    rows: Tensor | None = None,
) -> list[list[RLE | None]]:
    """Brings masks to the original resolution and encodes them, one frame at a time.

    Args:
        mask_logits: ``(N, T, h, w)``, covering the padded image.
        padded_size: (height, width) that the network saw.
        image_size: part of it that is image.
        output_size: size of the original video.
        rows: int64 ``(n,)``, which rows are wanted, repeats allowed and free; all by default.

    Returns:
        n lists of T encoded masks, ``None`` where a mask is empty. Repeated rows share their list.
    """
    if rows is None:
        rows = torch.arange(len(mask_logits), device=mask_logits.device)
    unique, inverse = rows.to(mask_logits.device).unique(return_inverse=True)
    tracks: list[list[RLE | None]] = [[] for _ in unique]
    for frame in range(mask_logits.shape[1]):
        small = mask_logits[unique, frame]  # (n, h, w)
        encoded = encode_masks(small, padded_size, image_size, output_size)
        for track, mask in zip(tracks, encoded, strict=True):
            track.append(mask)
    return [tracks[row] for row in inverse.tolist()]
