"""Tracking through the frames of a video: the network of ``tracker.py`` on ``memory.py``.

Evaluation and the training of the refiner run the same step; they differ in their rules only.

Shapes: T frames, Q frame queries, P live tracks, M rows kept of a frame, N tracks, C channels,
K classes, h w the mask features' size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.modeling.transformer_decoder.masked import DecoderOutput

from .memory import (
    EndedTracks,
    TrackMemory,
    TrackRules,
    commit_step,
    end_tracks,
    foreground_score,
    plan_step,
)
from .tracker import Frame, LiveTracks, VideoInstanceCutter

__all__ = [
    "FrameTracks",
    "InstanceSequences",
    "best_tracks",
    "gather_sequences",
    "track_clip",
    "track_frame",
    "track_window",
    "without_noise",
]

_OUTSIDE = -1e4  # mask logit where a track does not exist


@dataclass
class FrameTracks:
    """Result of one frame.

    Attributes:
        ids: track ids, int64 ``(M,)``, older tracks first.
        visible: whether the object was seen, bool ``(M,)``; the others are being waited for.
        embeds: query embeddings, ``(M, C)``.
        masks: mask logits, ``(M, h, w)``.
        ended: tracks that this frame ended, noise included.
    """

    ids: Tensor
    visible: Tensor
    embeds: Tensor
    masks: Tensor
    ended: EndedTracks


@dataclass
class InstanceSequences:
    """Instances over all frames of a video, as the refiner reads them.

    Attributes:
        ids: int64 ``(N,)``.
        logits: mean class logits before the refiner, ``(N, K+1)``.
        embeds: query embeddings, ``(N, T, C)``; position codes where the track does not exist.
        padding: bool ``(N, T)``, True where the track does not exist.
    """

    ids: Tensor
    logits: Tensor
    embeds: Tensor
    padding: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, index: Tensor) -> InstanceSequences:
        """Gives the instances of ``index``."""
        return InstanceSequences(
            self.ids[index], self.logits[index], self.embeds[index], self.padding[index]
        )

    def filled(self, other: InstanceSequences, size: int) -> InstanceSequences:
        """Appends the best-scored instances of ``other`` until there are ``size`` of them."""
        missing = min(size - len(self), len(other))
        if missing <= 0:
            return self
        best = foreground_score(other.logits).topk(missing).indices.sort().values
        added = other.rows(best)
        return InstanceSequences(
            torch.cat([self.ids, added.ids]),
            torch.cat([self.logits, added.logits]),
            torch.cat([self.embeds, added.embeds]),
            torch.cat([self.padding, added.padding]),
        )


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
        queries = tracker.first_frame(frame)[-1]  # (Q, C)
        logits = tracker.classify(queries)
        scores = first_scores
        visible = first_scores > rules.first_threshold
    else:
        tracks = LiveTracks(memory.embeds, memory.positions.positions)
        queries = tracker.next_frame(frame, tracks)[-1]  # (P+Q, C)
        logits = tracker.classify(queries)
        scores = foreground_score(logits)
        visible = scores > rules.select_threshold
        if rules.slot_rule != "unused" and len(memory):
            slots = tracker.slots(frame, tracks, query_table)[-1, : len(memory)]
            seen = _seen_with_slots(logits[: len(memory)], tracker.classify(slots), rules)
            visible = torch.cat([seen, visible[len(memory) :]])
    plan = plan_step(memory, visible, scores, rules)
    queries, logits = queries[plan.kept], logits[plan.kept]
    masks = tracker.segment(queries, frame.projected)  # (M, h, w)
    codes = tracker.mask_position(masks, frame.mask_features)
    ended = end_tracks(memory, plan)
    memory = commit_step(memory, plan, embeds=queries, logits=logits, codes=codes)
    return memory, FrameTracks(memory.ids, plan.visible, queries, masks, ended)


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
        frame = Frame(window.embeds[t], window.mask_features[t], projected[t], window.masks[t])
        memory, tracked = track_frame(
            tracker,
            frame,
            memory,
            rules,
            first_scores=first_scores[t],
            query_table=query_table,
        )
        yield memory, tracked


@torch.no_grad()
def track_clip(
    tracker: VideoInstanceCutter, clip: DecoderOutput, rules: TrackRules, query_table: Tensor
) -> tuple[InstanceSequences, Tensor]:
    """Tracks a whole clip and keeps everything, for the training of the refiner.

    Unlike evaluation it also keeps the masks of all tracks: the loss matches by them.

    Args:
        tracker: the network, frozen.
        clip: segmenter output of the clip's T frames.
        rules: usually ``TrackRules.for_training()``.
        query_table: ``(Q, C)``, see :func:`track_frame`.

    Returns:
        The sequences of the N tracks that are no noise, in order of birth, and their mask
        logits ``(N, T, h, w)``, -1e4 where a track does not exist.
    """
    memory = TrackMemory.empty(clip.embeds.shape[-1], clip.logits.shape[-1], clip.embeds.device)
    tracks, frames = memory.as_ended(), []
    for after, tracked in track_window(tracker, clip, memory, rules, query_table):
        memory = after
        tracks = tracks.joined(without_noise(tracked.ended, rules))
        frames.append(tracked)
    tracks = tracks.joined(memory.as_ended())
    sequences = gather_sequences(tracks, [(f.ids, f.embeds) for f in frames])
    masks = clip.masks.new_full((len(tracks), *clip.masks[:, 0].shape), _OUTSIDE)
    for t, tracked in enumerate(frames):
        _scatter(masks, t, tracks.ids, tracked.ids, tracked.masks)
    return sequences, masks


def without_noise(ended: EndedTracks, rules: TrackRules) -> EndedTracks:
    """Drops ended tracks that were too short to be an object."""
    return ended.rows(ended.lengths >= rules.min_length)


def best_tracks(tracks: EndedTracks, limit: int) -> EndedTracks:
    """Gives the ``limit`` tracks of highest score, in order of birth."""
    if len(tracks) <= limit:
        return tracks
    rows = foreground_score(tracks.logits).topk(limit).indices
    return tracks.rows(rows.sort().values)


def gather_sequences(
    tracks: EndedTracks, frames: Sequence[tuple[Tensor, Tensor]]
) -> InstanceSequences:
    """Lays the per-frame embeddings of tracks out over the video.

    Args:
        tracks: in order of id; others are skipped.
        frames: for each of the T frames ids ``(M,)`` and embeddings ``(M, C)``.

    Returns:
        Sequences that hold the track's last position code where it does not exist.
    """
    num_frames = len(frames)
    embeds = tracks.positions[:, None].repeat(1, num_frames, 1)  # (N, T, C)
    padding = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    for t, (ids, values) in enumerate(frames):
        _scatter(embeds, t, tracks.ids, ids, values)
        _scatter(padding, t, tracks.ids, ids, torch.zeros_like(ids, dtype=torch.bool))
    return InstanceSequences(tracks.ids, tracks.logits, embeds, padding)


def _seen_with_slots(logits: Tensor, slot_logits: Tensor, rules: TrackRules) -> Tensor:
    if rules.slot_rule == "mean":
        mean = 0.5 * logits.float() + 0.5 * slot_logits.float()
        return foreground_score(mean) > rules.select_threshold
    there = foreground_score(slot_logits) > rules.slot_threshold
    return there & (foreground_score(logits) > rules.select_threshold)


def _scatter(table: Tensor, t: int, table_ids: Tensor, ids: Tensor, values: Tensor) -> None:
    """Writes ``values`` (M, ...) to column ``t`` of the rows of ``table`` that have these ids."""
    if len(table_ids) == 0:
        return
    rows = torch.searchsorted(table_ids, ids).clamp(max=len(table_ids) - 1)
    found = table_ids[rows] == ids
    table[rows[found], t] = values[found].to(table.dtype)
