"""Instances over a whole video: what enters the temporal refiner.

Shapes: N instances, T frames, Q frame queries, M rows of a frame, C channels, K classes,
h w the mask features' size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.modeling.postprocess import link_queries
from vidseg.modeling.transformer_decoder.masked import DecoderOutput

from .inference import track_window, without_noise
from .memory import EndedTracks, TrackMemory, TrackRules, foreground_score
from .settings import RefinerInput
from .tracker import VideoInstanceCutter

__all__ = [
    "InstanceSequences",
    "best_tracks",
    "clip_instances",
    "gather_sequences",
    "linked_sequences",
    "track_clip",
]

_OUTSIDE = -1e4  # mask logit where a track does not exist


@dataclass
class InstanceSequences:
    """Instances over all frames of a video, as the refiner reads them.

    Attributes:
        ids: int64 ``(N,)``.
        logits: mean class logits before the refiner, ``(N, K+1)``.
        embeds: query embeddings, ``(N, T, C)``; position codes where the track does not exist.
        padding: bool ``(N, T)``, True where the track does not exist.
        masks: mask logits before the refiner, ``(N, T, h, w)``; kept in training only.
    """

    ids: Tensor
    logits: Tensor
    embeds: Tensor
    padding: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, index: Tensor) -> InstanceSequences:
        """Gives the instances of ``index``."""
        return InstanceSequences(
            self.ids[index],
            self.logits[index],
            self.embeds[index],
            self.padding[index],
            None if self.masks is None else self.masks[index],
        )

    def best(self, limit: int) -> InstanceSequences:
        """Gives the ``limit`` instances of highest score, in their order."""
        return self if len(self) <= limit else self.rows(_best_rows(self.logits, limit))

    def filled(self, other: InstanceSequences, size: int) -> InstanceSequences:
        """Appends the best-scored instances of ``other`` until there are ``size`` of them."""
        missing = size - len(self)
        if missing <= 0 or len(other) == 0:
            return self
        added = other.best(missing)
        masks = None
        if self.masks is not None and added.masks is not None:
            masks = torch.cat([self.masks, added.masks])
        return InstanceSequences(
            torch.cat([self.ids, added.ids]),
            torch.cat([self.logits, added.logits]),
            torch.cat([self.embeds, added.embeds]),
            torch.cat([self.padding, added.padding]),
            masks,
        )


def best_tracks(tracks: EndedTracks, limit: int) -> EndedTracks:
    """Gives the ``limit`` tracks of highest score, in order of birth."""
    return tracks if len(tracks) <= limit else tracks.rows(_best_rows(tracks.logits, limit))


def gather_sequences(
    tracks: EndedTracks, frames: Sequence[tuple[Tensor, Tensor]]
) -> InstanceSequences:
    """Lays the per-frame embeddings of tracks out over the video.

    Args:
        tracks: in order of id; other tracks in ``frames`` are skipped.
        frames: for each of the T frames ids ``(M,)`` and embeddings ``(M, C)``.

    Returns:
        Sequences that hold the track's last position code where it does not exist.
    """
    embeds = tracks.positions[:, None].repeat(1, len(frames), 1)  # (N, T, C)
    padding = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    for t, (ids, values) in enumerate(frames):
        _scatter(embeds, t, tracks.ids, ids, values)
        _scatter(padding, t, tracks.ids, ids, torch.zeros_like(ids, dtype=torch.bool))
    return InstanceSequences(tracks.ids, tracks.logits, embeds, padding)


def linked_sequences(
    embeds: Tensor, logits: Tensor, *, first_id: int = 0, masks: Tensor | None = None
) -> InstanceSequences:
    """Links the frame queries of a video naively, without the tracker.

    Args:
        embeds: frame query embeddings, ``(T, Q, C)``.
        logits: their class logits, ``(T, Q, K+1)``.
        first_id: id of the first sequence.
        masks: their mask logits, ``(T, Q, h, w)``, if the sequences should have them.

    Returns:
        Q sequences that exist on every frame.
    """
    order = link_queries(embeds)  # (T, Q)
    frame = torch.arange(len(order), device=order.device)[:, None]
    linked = embeds[frame, order].transpose(0, 1)  # (Q, T, C)
    return InstanceSequences(
        ids=first_id + torch.arange(order.shape[1], device=order.device),
        logits=logits.float()[frame, order].mean(dim=0),
        embeds=linked,
        padding=torch.zeros(linked.shape[:2], dtype=torch.bool, device=order.device),
        masks=None if masks is None else masks[frame, order].transpose(0, 1),
    )


@torch.no_grad()
def track_clip(
    tracker: VideoInstanceCutter, clip: DecoderOutput, rules: TrackRules, query_table: Tensor
) -> InstanceSequences:
    """Tracks a whole clip and keeps everything, for the training of the refiner.

    Unlike evaluation it also keeps the masks of all tracks: the loss matches by them.

    Args:
        tracker: the network, frozen.
        clip: segmenter output of the clip's T frames.
        rules: usually ``TrackRules.for_training()``.
        query_table: query features of the frame decoder, ``(Q, C)``.

    Returns:
        The N tracks that are no noise, in order of birth; mask logits are -1e4 where a track
        does not exist.
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
    sequences.masks = masks
    return sequences


@torch.no_grad()
def clip_instances(
    tracker: VideoInstanceCutter,
    clip: DecoderOutput,
    rules: TrackRules,
    query_table: Tensor,
    wanted: RefinerInput,
) -> InstanceSequences:
    """Gives the refiner's input for a training clip: best tracks, then linked frame queries.

    Args:
        tracker: as in :func:`track_clip`, like ``clip``, ``rules`` and ``query_table``.
        clip: see above.
        rules: see above.
        query_table: see above.
        wanted: how many of each.
    """
    tracks = track_clip(tracker, clip, rules, query_table).best(wanted.max_tracks)
    if not wanted.fill:
        return tracks
    first_id = 1 + int(tracks.ids.max()) if len(tracks) else 0
    linked = linked_sequences(clip.embeds, clip.logits, first_id=first_id, masks=clip.masks)
    return tracks.filled(linked, wanted.num_instances)


def _best_rows(logits: Tensor, limit: int) -> Tensor:
    return foreground_score(logits).topk(limit).indices.sort().values


def _scatter(table: Tensor, t: int, table_ids: Tensor, ids: Tensor, values: Tensor) -> None:
    """Writes ``values`` (M, ...) to column ``t`` of the rows of ``table`` that have these ids."""
    if len(table_ids) == 0:
        return
    rows = torch.searchsorted(table_ids, ids).clamp(max=len(table_ids) - 1)
    found = table_ids[rows] == ids
    table[rows[found], t] = values[found].to(table.dtype)
