"""What the tracker remembers of a video: tensors with one row per live track, and their rules.

No network here: :func:`plan_step` decides who lives, :func:`commit_step` writes the new memory.
It takes the largest part of the old one over (see ``positions.py``), the rest stays as it is.

Shapes: P live tracks, M rows kept of a frame (tracks first, then births), E ended tracks,
C channels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode

from .positions import PositionMemory

__all__ = [
    "EndedTracks",
    "StepPlan",
    "TrackMemory",
    "TrackRules",
    "commit_step",
    "end_tracks",
    "foreground_score",
    "plan_step",
    "without_doubles",
]


@dataclass(frozen=True)
class TrackRules:
    """When tracks are born, seen and ended.

    Args:
        select_threshold: score above which a row is visible, or born.
        first_threshold: score of the frame decoder above which a query of frame 0 is born.
        slot_threshold: score of the slot branch above which a track may be visible.
        slot_rule: what the slot branch is used for: ``"unused"``, ``"gate"`` (a track must pass
            ``slot_threshold``, too) or ``"mean"`` (its logits are averaged with the tracker's).
        max_missed: frames in a row without the object after which its track ends.
        min_length: shorter tracks are noise, unless they last to the end of the video.
        max_births: new tracks per frame at most, best scores first; -1 for no limit.
        birth_overlap: mask IoU with a visible track, or with a better birth of the same frame,
            from which a new row is no new object; above 1 nothing is suppressed.
    """

    select_threshold: float = 0.1
    first_threshold: float = 0.01
    slot_threshold: float = 0.01
    slot_rule: str = "unused"
    max_missed: int = 8
    min_length: int = 1
    max_births: int = -1
    birth_overlap: float = 2.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config to the rules of evaluation."""
        head = cfg.MODEL.VIDEO_HEAD
        return {
            "select_threshold": head.INFERENCE_SELECT_THRESHOLD,
            "first_threshold": head.AUX_INFERENCE_SELECT_THRESHOLD,
            "slot_threshold": head.DIS_FG_THRESHOLD,
            "slot_rule": "gate" if head.OVIS_INFER else "unused",
            "max_missed": head.KICK_OUT_FRAME_NUM,
            "min_length": head.NOISE_FRAME_NUM,
            "max_births": head.MAX_BIRTHS_PER_FRAME,
            "birth_overlap": head.BIRTH_OVERLAP_THRESHOLD,
        }

    def for_training(self) -> TrackRules:
        """Gives the rules under which the frozen tracker feeds the refiner's training."""
        return replace(self, slot_rule="unused" if self.slot_rule == "unused" else "mean")


@dataclass
class TrackMemory:
    """State of one video between frames; the caller owns it until :func:`commit_step`.

    Attributes:
        ids: track ids, int64 ``(P,)``, a counter in order of birth.
        starts: frame of birth, int64 ``(P,)``. A live track has been kept on every frame since.
        missed: frames in a row without the object, int64 ``(P,)``.
        logits_sum: class logits summed over the track's frames, float32 ``(P, K+1)``.
        embeds: last query embedding, float32 ``(P, C)``.
        positions: position memory of the same tracks.
        num_frames: frames seen, the index of the next one.
        next_id: id of the next birth.
    """

    ids: Tensor
    starts: Tensor
    missed: Tensor
    logits_sum: Tensor
    embeds: Tensor
    positions: PositionMemory
    num_frames: int = 0
    next_id: int = 0

    @classmethod
    def empty(
        cls, channels: int, num_logits: int, device: torch.device | str = "cpu"
    ) -> TrackMemory:
        """Gives the memory before the first frame; ``num_logits`` is K+1."""
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(
            ids=none,
            starts=none,
            missed=none,
            logits_sum=torch.zeros(0, num_logits, device=device),
            embeds=torch.zeros(0, channels, device=device),
            positions=PositionMemory.empty(0, channels, device),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Tensor:
        """Frames that each live track has been kept for, int64 ``(P,)``."""
        return self.num_frames - self.starts

    def as_ended(self) -> EndedTracks:
        """Gives the live tracks as if the video ended here."""
        return self._ended(torch.arange(len(self), device=self.ids.device))

    def _ended(self, rows: Tensor) -> EndedTracks:
        lengths = self.lengths[rows]
        return EndedTracks(
            ids=self.ids[rows],
            starts=self.starts[rows],
            lengths=lengths,
            logits=self.logits_sum[rows] / lengths[:, None],
            positions=self.positions.positions[rows],
        )


@dataclass
class EndedTracks:
    """Summary of tracks whose life is over: ids, starts, lengths (E,), mean logits (E, K+1).

    ``positions`` ``(E, C)`` are their last similarity-guided position codes.
    """

    ids: Tensor
    starts: Tensor
    lengths: Tensor
    logits: Tensor
    positions: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, index: Tensor) -> EndedTracks:
        """Gives the tracks of ``index`` (int64 or bool)."""
        return EndedTracks(
            self.ids[index],
            self.starts[index],
            self.lengths[index],
            self.logits[index],
            self.positions[index],
        )

    def joined(self, other: EndedTracks) -> EndedTracks:
        """Gives the tracks of both, in order of id, which is the order of birth."""
        both = EndedTracks(
            torch.cat([self.ids, other.ids]),
            torch.cat([self.starts, other.starts]),
            torch.cat([self.lengths, other.lengths]),
            torch.cat([self.logits, other.logits]),
            torch.cat([self.positions, other.positions]),
        )
        return both.rows(both.ids.argsort())


@dataclass
class StepPlan:
    """Who lives on after a frame.

    Attributes:
        kept: rows of the frame that stay, int64 ``(M,)``: tracks in their order, then births.
        visible: whether the object was seen, bool ``(M,)``.
        missed: new counters, int64 ``(M,)``.
        ended: rows of the tracks that end, int64 ``(E,)``.
        num_tracks: how many of ``kept`` are old tracks.
    """

    kept: Tensor
    visible: Tensor
    missed: Tensor
    ended: Tensor
    num_tracks: int


def foreground_score(logits: Tensor) -> Tensor:
    """Gives the best class probability apart from "no object", ``(..., K+1)`` to ``(...)``."""
    return logits.float().softmax(dim=-1)[..., :-1].amax(dim=-1)


def without_doubles(
    visible: Tensor, scores: Tensor, masks: Tensor, *, num_tracks: int, overlap: float
) -> Tensor:
    """Takes back births on objects that are tracked already, or born twice in the frame.

    Args:
        visible: bool ``(P+n,)``, rows of the live tracks, then of new objects.
        scores: float ``(P+n,)``; of two births on one object the better one stays.
        masks: bool ``(V, h, w)`` of the visible rows, in their order.
        num_tracks: P.
        overlap: mask IoU from which two rows are one object.

    Returns:
        ``visible`` without those births; tracks stay as they are.
    """
    rows = visible.nonzero()[:, 0]
    flat = masks.flatten(1).float()
    shared = flat @ flat.T
    area = flat.sum(dim=1)
    iou = shared / (area[:, None] + area[None] - shared).clamp(min=1)
    order = scores[rows].masked_fill(rows < num_tracks, float("inf"))
    kept: list[int] = []
    for row in order.argsort(descending=True, stable=True).tolist():
        is_track = int(rows[row]) < num_tracks
        if is_track or not kept or float(iou[row, kept].max()) < overlap:
            kept.append(row)
    result = torch.zeros_like(visible)
    result[rows[kept]] = True
    return result


def plan_step(memory: TrackMemory, visible: Tensor, scores: Tensor, rules: TrackRules) -> StepPlan:
    """Decides which rows of a frame stay.

    Args:
        memory: before the frame.
        visible: bool ``(P+n,)``, rows of the live tracks, then of new objects.
        scores: float ``(P+n,)``, order of births where their number is limited.
        rules: only ``max_missed`` and ``max_births`` are read.
    """
    num_tracks = len(memory)
    seen = visible[:num_tracks]
    missed = (memory.missed + 1).masked_fill(seen, 0)
    alive = missed < rules.max_missed
    kept_tracks = alive.nonzero()[:, 0]
    births = visible[num_tracks:].nonzero()[:, 0]
    if 0 <= rules.max_births < len(births):
        best = scores[num_tracks:][births].argsort(descending=True, stable=True)
        births = births[best[: rules.max_births].sort().values]
    return StepPlan(
        kept=torch.cat([kept_tracks, births + num_tracks]),
        visible=torch.cat([seen[kept_tracks], visible.new_ones(len(births))]),
        missed=torch.cat([missed[kept_tracks], missed.new_zeros(len(births))]),
        ended=(~alive).nonzero()[:, 0],
        num_tracks=len(kept_tracks),
    )


def end_tracks(memory: TrackMemory, plan: StepPlan) -> EndedTracks:
    """Gives the tracks that the plan ends; the ending frame itself is not part of their life."""
    return memory._ended(plan.ended)


def commit_step(
    memory: TrackMemory, plan: StepPlan, *, embeds: Tensor, logits: Tensor, codes: Tensor
) -> TrackMemory:
    """Writes a frame.

    Args:
        memory: before the frame. It hands its ring of position codes on: what ended can still be
            read off it, but it cannot be stepped from again.
        plan: from :func:`plan_step`.
        embeds: query embeddings of the kept rows, ``(M, C)``.
        logits: their class logits, ``(M, K+1)``.
        codes: position codes of their masks, ``(M, C)``; read where the row is visible.

    Returns:
        The memory before the next frame, rows in the order of ``plan.kept``.

    Raises:
        RuntimeError: if the memory was stepped from before.
    """
    old = plan.kept[: plan.num_tracks]
    num_births = len(plan.kept) - plan.num_tracks
    new_ids = memory.next_id + torch.arange(num_births, device=old.device)
    new_logits = memory.logits_sum.new_zeros(num_births, memory.logits_sum.shape[1])
    return TrackMemory(
        ids=torch.cat([memory.ids[old], new_ids]),
        starts=torch.cat([memory.starts[old], torch.full_like(new_ids, memory.num_frames)]),
        missed=plan.missed,
        logits_sum=torch.cat([memory.logits_sum[old], new_logits]) + logits.float(),
        embeds=embeds.float(),
        positions=memory.positions.step(old, num_births, codes, plan.visible),
        num_frames=memory.num_frames + 1,
        next_id=memory.next_id + num_births,
    )
