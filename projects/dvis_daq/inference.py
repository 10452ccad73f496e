"""Tracking through the frames of a video: the network of ``tracker.py`` on ``memory.py``.

Evaluation and the training of the refiner run the same step; they differ in their rules only.

Shapes: T frames, Q frame queries, P live tracks, M rows kept of a frame, N tracks, C channels,
K classes, h w the mask features' size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.host_memory import large_blocks_mapped, release_freed_memory
from vidseg.modeling.transformer_decoder.masked import DecoderOutput

from .memory import (
    EndedTracks,
    TrackMemory,
    TrackRules,
    commit_step,
    end_tracks,
    foreground_score,
    plan_step,
    without_doubles,
)
from .tracker import Frame, LiveTracks, VideoInstanceCutter

__all__ = [
    "FrameTracks",
    "seen_with_slots",
    "track_frame",
    "track_window",
    "without_noise",
]

_MANY_TRACKS = 300


@dataclass
class FrameTracks:
    """Result of one frame.

    Attributes:
        ids: track ids, int64 ``(M,)``, older tracks first.
        visible: whether the object was seen, bool ``(M,)``; the others are being waited for.
        embeds: query embeddings, ``(M, C)``.
        masks: mask logits, ``(M, h, w)``.
        ended: tracks that this frame ended, noise included.
        rows: which of the queries each comes from, int64 ``(M,)``; the first ``num_tracks`` of
            them carried tracks of the frame before, the ``num_anchors`` after them new objects.
        num_tracks: P of the frame before.
        num_anchors: Q.
    """

    ids: Tensor
    visible: Tensor
    embeds: Tensor
    masks: Tensor
    ended: EndedTracks
    rows: Tensor
    num_tracks: int
    num_anchors: int


def track_frame(
    tracker: VideoInstanceCutter,
    frame: Frame,
    memory: TrackMemory,
    rules: TrackRules,
    *,
    first_scores: Tensor,
    query_table: Tensor,
) -> tuple[TrackMemory, FrameTracks]:
    """Carries the tracks over one frame.

    Masks and position codes are computed for the rows that stay, not for every anchor.

    Args:
        tracker: the network.
        frame: the segmenter's view of the frame.
        memory: state after the frame before.
        rules: thresholds.
        first_scores: scores of the frame queries in the frame decoder, ``(Q,)``; read on the
            first frame of a video, where they decide on the births.
        query_table: query features of the frame decoder, ``(Q, C)``, for the slot branch.

    Returns:
        The memory after the frame and the frame's tracks.
    """
    if memory.num_frames == 0:
        queries = tracker.first_frame(frame, last_only=True)[-1]  # (Q, C)
        logits = tracker.classify(queries)
        scores = first_scores
        visible = first_scores > rules.first_threshold
    else:
        tracks = LiveTracks(memory.embeds, memory.positions.positions)
        queries = tracker.next_frame(frame, tracks, last_only=True)[-1]  # (P+Q, C)
        _release_holes(memory)
        logits = tracker.classify(queries)
        scores = foreground_score(logits)
        visible = scores > rules.select_threshold
        if rules.slot_rule != "unused" and len(memory):
            slots = tracker.slots(frame, tracks, query_table, last_only=True)[-1, : len(memory)]
            seen = seen_with_slots(logits[: len(memory)], tracker.classify(slots), rules)
            visible = torch.cat([seen, visible[len(memory) :]])
            _release_holes(memory)
    if rules.birth_overlap <= 1:
        masks = tracker.segment(queries[visible], frame.projected) > 0
        visible = without_doubles(
            visible, scores, masks, num_tracks=len(memory), overlap=rules.birth_overlap
        )
    plan = plan_step(memory, visible, scores, rules)
    queries, logits = queries[plan.kept], logits[plan.kept]
    masks = tracker.segment(queries, frame.projected)  # (M, h, w)
    codes = tracker.mask_position(masks, frame.mask_features)
    ended = end_tracks(memory, plan)
    _release_holes(memory)
    after = commit_step(memory, plan, embeds=queries, logits=logits, codes=codes)
    return after, FrameTracks(
        after.ids,
        plan.visible,
        queries,
        masks,
        ended,
        rows=plan.kept,
        num_tracks=len(memory),
        num_anchors=len(frame.embeds),
    )


def track_window(
    tracker: VideoInstanceCutter,
    window: DecoderOutput,
    memory: TrackMemory,
    rules: TrackRules,
    query_table: Tensor,
) -> Iterator[tuple[TrackMemory, FrameTracks]]:
    """Carries the tracks over a window of segmented frames; see :func:`track_frame`.

    Yields:
        For every frame the memory after it and its tracks.
    """
    projected = tracker.project(window.mask_features)
    first_scores = foreground_score(window.logits)  # (T, Q)
    for t in range(len(projected)):
        _release_holes(memory)
        frame = Frame(window.embeds[t], window.mask_features[t], projected[t], window.masks[t])
        with _sparing(memory):
            step = track_frame(
                tracker,
                frame,
                memory,
                rules,
                first_scores=first_scores[t],
                query_table=query_table,
            )
        memory = step[0]
        yield step
        del step  # the masks of many tracks are not for the next frame to carry
    _release_holes(memory)


def without_noise(ended: EndedTracks, rules: TrackRules) -> EndedTracks:
    """Drops ended tracks that were too short to be an object."""
    return ended.rows(ended.lengths >= rules.min_length)


def _release_holes(memory: TrackMemory) -> None:
    """Gives back what one step of a frame with many tracks has left, before the next one runs.

    The number of rows is another one in every frame, so that blocks seldom fit where others were,
    and each step would go behind the holes of the one before.
    """
    if _is_crowded(memory):
        release_freed_memory()


def _sparing(memory: TrackMemory) -> contextlib.AbstractContextManager[None]:
    """Keeps the blocks of a frame with many tracks out of the heap, whose holes they would make."""
    return large_blocks_mapped() if _is_crowded(memory) else contextlib.nullcontext()


def _is_crowded(memory: TrackMemory) -> bool:
    return len(memory) > _MANY_TRACKS and memory.ids.device.type == "cpu"


def seen_with_slots(logits: Tensor, slot_logits: Tensor, rules: TrackRules) -> Tensor:
    """Tells which tracks are seen, bool ``(P,)``, by the tracker's and the slots' ``(P, K+1)``."""
    if rules.slot_rule == "mean":
        mean = 0.5 * logits.float() + 0.5 * slot_logits.float()
        return foreground_score(mean) > rules.select_threshold
    there = foreground_score(slot_logits) > rules.slot_threshold
    return there & (foreground_score(logits) > rules.select_threshold)
