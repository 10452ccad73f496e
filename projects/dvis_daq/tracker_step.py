"""The tracker's step over one frame as a graph of tensors of fixed size.

It does what ``inference.track_frame`` does: there a video has as many rows as it has tracks, here
the state has room for N of them, and rows without a track are masked out.

Shapes: N rows of the state, Q frame queries, C channels, K classes, r recent position codes,
h w the mask features' size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.recording import repeat_while
from vidseg.modeling.postprocess import foreground_confidence

from .inference import seen_with_slots
from .memory import TrackRules, foreground_score
from .positions import NUM_RECENT, moved_positions
from .tracker import Frame, LiveTracks, VideoInstanceCutter

__all__ = ["TrackerStep", "TrackerTensors"]


class TrackerTensors(NamedTuple):
    """State of one video between frames: the columns of ``TrackMemory``, and of mask quality.

    Attributes:
        ids: int64 ``(N,)``, older tracks first; -1 in empty rows.
        starts: frame of birth, int64 ``(N,)``.
        missed: frames in a row without the object, int64 ``(N,)``.
        logits_sum: class logits summed over frames, ``(N, K+1)``.
        queries: last query embedding, ``(N, C)``.
        positions: running mean of position codes, ``(N, C)``.
        recent: unit vectors of the last codes, ``(N, r, C)``.
        counts: codes seen so far, int64 ``(N,)``.
        probability: summed over the masks' pixels so far, float64 ``(N,)``.
        pixels: how many those are, float64 ``(N,)``.
        num_frames: frames so far, int64 ``()``.
        next_id: id of the next track, int64 ``()``.
    """

    ids: Tensor
    starts: Tensor
    missed: Tensor
    logits_sum: Tensor
    queries: Tensor
    positions: Tensor
    recent: Tensor
    counts: Tensor
    probability: Tensor
    pixels: Tensor
    num_frames: Tensor
    next_id: Tensor

    @classmethod
    def empty(
        cls, rows: int, channels: int, num_logits: int, device: torch.device | str = "cpu"
    ) -> TrackerTensors:
        """Gives the state before the first frame."""
        whole = torch.zeros(rows, dtype=torch.int64, device=device)
        real = torch.zeros(rows, dtype=torch.float64, device=device)
        width = torch.zeros(rows, channels, device=device)
        return cls(
            ids=whole - 1,
            starts=whole,
            missed=whole.clone(),
            logits_sum=torch.zeros(rows, num_logits, device=device),
            queries=width,
            positions=width.clone(),
            recent=torch.zeros(rows, NUM_RECENT, channels, device=device),
            counts=whole.clone(),
            probability=real,
            pixels=real.clone(),
            num_frames=whole.new_zeros(()),
            next_id=whole.new_zeros(()),
        )


class TrackerStep(nn.Module):
    """Carries the tracks over one frame.

    Args:
        tracker: the network.
        query_table: query features of the frame decoder, ``(Q, C)``.
        rules: of births, visibility and ends.
    """

    query_table: Tensor

    def __init__(
        self, tracker: VideoInstanceCutter, query_table: Tensor, rules: TrackRules
    ) -> None:
        super().__init__()
        self.tracker = tracker
        self.rules = rules
        self.register_buffer("query_table", query_table.detach().clone())

    def forward(
        self, logits: Tensor, masks: Tensor, embeds: Tensor, mask_features: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """Runs the step.

        Args:
            logits: class logits of the frame queries, ``(Q, K+1)``.
            masks: their mask logits, ``(Q, h, w)``.
            embeds: their embeddings, ``(Q, C)``.
            mask_features: ``(C, h, w)``.
            state: in the order of :class:`TrackerTensors`.

        Returns:
            ``visible, scores, quality, mask_logits, dropped`` and the new state.
        """
        before = TrackerTensors(*state)
        frame = Frame(embeds, mask_features, self.tracker.project(mask_features), masks)
        rows = self._seen(frame, foreground_score(logits), before)
        plan = self._plan(rows, before)
        return self._written(frame, rows, before, plan)

    def _seen(self, frame: Frame, first_scores: Tensor, before: TrackerTensors) -> _Rows:
        """Runs the network over tracks and anchors, and tells which of them are seen."""
        tracker, rules = self.tracker, self.rules
        is_first = before.num_frames == 0
        empty = before.ids < 0
        code = tracker.mask_position(frame.masks, frame.mask_features)  # (Q, C)
        code = torch.where(is_first, 0.0, code)
        anchors = tracker.new_ins_embeds.weight.expand(tracker.num_new_instances, -1)
        if tracker.anchors_from_queries:
            anchors = anchors + frame.embeds
        anchors = torch.where(is_first, frame.embeds, anchors)
        queries = tracker.decode(
            torch.cat([before.queries, anchors]),
            frame.embeds,
            query_pos=torch.cat([before.positions, code]),
            memory_pos=code,
            empty=torch.cat([empty, empty.new_zeros(len(anchors))]),
            last_only=True,
        )[-1]  # (N+Q, C)
        logits = tracker.classify(queries)
        later = foreground_score(logits)
        scores = torch.where(is_first, F.pad(first_scores, (len(empty), 0)), later)
        visible = scores > torch.where(is_first, rules.first_threshold, rules.select_threshold)
        if rules.slot_rule != "unused":
            tracks = LiveTracks(before.queries, before.positions)
            slots = tracker.slots(frame, tracks, self.query_table, empty=empty, last_only=True)
            slot_logits = tracker.classify(slots[-1, : len(empty)])
            seen = seen_with_slots(logits[: len(empty)], slot_logits, rules)
            visible = torch.cat([seen, visible[len(empty) :]])
        visible = visible & ~F.pad(empty, (0, len(anchors)))
        masks = None
        if rules.birth_overlap <= 1:
            masks = tracker.segment(queries, frame.projected)
            visible = _without_doubles(visible, scores, masks, len(empty), rules.birth_overlap)
        return _Rows(queries, logits, scores, visible, masks)

    def _plan(self, rows: _Rows, before: TrackerTensors) -> _Plan:
        """Decides who lives on; see ``memory.plan_step``."""
        size = len(before.ids)
        seen, births = rows.visible[:size], rows.visible[size:]
        missed = (before.missed + 1).masked_fill(seen, 0)
        alive = (before.ids >= 0) & (missed < self.rules.max_missed)
        ranks = _ranks(rows.scores[size:], births)
        if self.rules.max_births >= 0:
            births = births & (ranks < self.rules.max_births)
        room = size - alive.sum()
        fits = births & (ranks < room)
        kept = torch.cat([alive, fits])
        places = torch.arange(len(kept), device=kept.device)
        order = torch.where(kept, places, places + len(kept)).argsort()[:size]
        return _Plan(
            order,
            is_kept=kept[order],
            is_birth=kept[order] & (order >= size),
            missed=F.pad(missed, (0, len(births)))[order],
            dropped=births.sum() - fits.sum(),
        )

    def _written(
        self, frame: Frame, rows: _Rows, before: TrackerTensors, plan: _Plan
    ) -> tuple[Tensor, ...]:
        """Writes the frame, see ``memory.commit_step``, and gives all outputs."""
        tracker, kept = self.tracker, plan.is_kept
        old = TrackerTensors(*(self._carried(column, rows, plan) for column in before))
        queries, logits = _where(kept, rows.queries[plan.order]), rows.logits[plan.order].float()
        visible = kept & rows.visible[plan.order]
        masks = rows.masks
        masks = tracker.segment(queries, frame.projected) if masks is None else masks[plan.order]
        masks = torch.where(kept[:, None, None], masks, -1.0)
        codes = tracker.mask_position(masks, frame.mask_features)
        moved, unit = moved_positions(old.recent, old.positions, old.counts, codes)
        place = torch.arange(NUM_RECENT, device=kept.device) == (old.counts % NUM_RECENT)[:, None]
        written = (place & visible[:, None])[..., None]  # (N, r, 1)
        probability, pixels = foreground_confidence(masks)
        number = plan.is_birth.long().cumsum(0) - 1
        after = TrackerTensors(
            ids=torch.where(plan.is_birth, before.next_id + number, old.ids).masked_fill(~kept, -1),
            starts=torch.where(plan.is_birth, before.num_frames, old.starts),
            missed=_where(kept, plan.missed),
            logits_sum=_where(kept, old.logits_sum + logits),
            queries=queries.float(),
            positions=torch.where(visible[:, None], moved, old.positions),
            recent=torch.where(written, unit[:, None], old.recent),
            counts=old.counts + visible,
            probability=old.probability + probability,
            pixels=old.pixels + pixels,
            num_frames=before.num_frames + 1,
            next_id=before.next_id + plan.is_birth.sum(),
        )
        lengths = (after.num_frames - after.starts).clamp(min=1)
        scores = (after.logits_sum / lengths[:, None]).softmax(dim=1)[:, :-1]
        quality = (after.probability / after.pixels.clamp(min=1)).float()
        outputs = (visible, _where(kept, scores), quality, masks, plan.dropped)
        return (*outputs, *after)

    @staticmethod
    def _carried(column: Tensor, rows: _Rows, plan: _Plan) -> Tensor:
        """Moves the rows of the state to where they go on; births and empty rows get zeros."""
        if column.dim() == 0:
            return column
        grown = torch.cat(
            [column, column.new_zeros(len(rows.scores) - len(column), *column.shape[1:])]
        )
        return _where(plan.is_kept & ~plan.is_birth, grown[plan.order])


class _Rows(NamedTuple):
    """Rows of a frame: N tracks, then Q new objects; masks (N+Q, h, w) only where needed."""

    queries: Tensor
    logits: Tensor
    scores: Tensor
    visible: Tensor
    masks: Tensor | None


class _Plan(NamedTuple):
    """Which row of the frame becomes each row of the new state, and what it is then."""

    order: Tensor
    is_kept: Tensor
    is_birth: Tensor
    missed: Tensor
    dropped: Tensor


def _where(condition: Tensor, values: Tensor) -> Tensor:
    """Puts zeros into the rows in which a condition ``(N,)`` does not hold."""
    condition = condition.view(-1, *[1] * (values.dim() - 1))
    return torch.where(condition, values, torch.zeros((), dtype=values.dtype, device=values.device))


def _ranks(scores: Tensor, among: Tensor) -> Tensor:
    """Gives the place of each row in the order of scores, counting those ``among`` only."""
    return (among & _comes_before(scores)).sum(dim=1)


def _comes_before(scores: Tensor) -> Tensor:
    """Tells which rows stand before each in a stable order of falling scores, ``(n, n)``."""
    places = torch.arange(len(scores), device=scores.device)
    is_equal = (scores == scores[:, None]) & (places < places[:, None])
    return (scores > scores[:, None]) | is_equal


def _without_doubles(
    visible: Tensor, scores: Tensor, masks: Tensor, size: int, overlap: float
) -> Tensor:
    """Takes back births on objects that are seen already; see ``memory.without_doubles``.

    Args:
        visible: bool ``(N+Q,)``.
        scores: ``(N+Q,)``.
        masks: logits ``(N+Q, h, w)``.
        size: N.
        overlap: mask IoU from which two rows are one object.
    """
    flat = ((masks > 0) & visible[:, None, None]).flatten(1).float()
    shared = flat[size:] @ flat.T  # (Q, N+Q)
    area = flat.sum(dim=1)
    iou = shared / (area[size:, None] + area - shared).clamp(min=1)
    is_double = iou >= overlap
    births = visible[size:] & ~(is_double[:, :size] & visible[:size]).any(dim=1)
    rivals = is_double[:, size:] & _comes_before(scores[size:])

    # A birth falls to a better one that stays: from the best one on, it settles who does.
    def is_unsettled(stays: Tensor, changes: Tensor) -> Tensor:
        return changes > 0

    def settle(stays: Tensor, changes: Tensor) -> tuple[Tensor, ...]:
        now = births & ~(rivals & stays).any(dim=1)
        return now, (now != stays).sum()

    start = (torch.zeros_like(births), births.new_ones((), dtype=torch.int64))
    stays, _ = repeat_while(is_unsettled, settle, start)
    return torch.cat([visible[:size], stays])
