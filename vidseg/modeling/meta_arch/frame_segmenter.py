"""Frames segmented one by one and linked afterwards (MinVIS, Huang et al., NeurIPS 2022).

Shapes: B frames, T frames of a video, Q queries, N objects, C channels, K classes, h w mask pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.modeling.build import META_ARCH_REGISTRY
from vidseg.modeling.criterion import SetCriterion
from vidseg.modeling.mask_encoding import encode_masks
from vidseg.modeling.postprocess import foreground_confidence, link_step, select_instances
from vidseg.modeling.transformer_decoder import DecoderOutput
from vidseg.rle import RLE
from vidseg.structures import ClipInstances, VideoInstances

from .base import Sample, SegmenterBase, Size
from .explaining import LinkingRecorder
from .mask_store import MaskStore
from .session import ResultPlace, ResultSettings

__all__ = ["FrameSegmenter", "LinkingSession", "frame_targets"]


@META_ARCH_REGISTRY.register(name="MaskFormer")
@META_ARCH_REGISTRY.register(name="MinVIS")
class FrameSegmenter(SegmenterBase):
    """Learns single frames; a video is the assignment of queries between neighbouring frames.

    Args:
        criterion: set loss of a batch of frames.
        result_settings: what a prediction holds.
        match_absent: an object of the clip is a target also in frames where it is absent, with an
            empty mask, as published; otherwise it is left out there.
        base: arguments of ``SegmenterBase``.

    Source: MinVIS, section 3.
    """

    def __init__(
        self,
        criterion: SetCriterion,
        *,
        result_settings: ResultSettings | None = None,
        match_absent: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.criterion = criterion
        self.result_settings = ResultSettings() if result_settings is None else result_settings
        self.match_absent = match_absent

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL``."""
        return {
            "criterion": SetCriterion(**SetCriterion.from_config(cfg), spans_ranks=True),
            "result_settings": ResultSettings(**ResultSettings.from_config(cfg)),
            "match_absent": cfg.MODEL.MASK_FORMER.MATCH_ABSENT,
            **cls.base_args(cfg),
        }

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Set loss over all frames of all clips, each frame matched on its own."""
        return self.set_losses(*self.segment_clips(samples))

    def segment_clips(self, samples: list[Sample]) -> tuple[DecoderOutput, list[ClipInstances]]:
        """Segments the frames of a batch.

        Returns:
            The output and the targets of all frames, clip after clip.
        """
        frames, size = self.batch_frames(samples)
        keep_aux = self.criterion.deep_supervision
        out = self.sem_seg_head(self.backbone(frames), keep_aux=keep_aux)
        targets = [
            target
            for sample in samples
            for target in frame_targets(
                sample["instances"].to(self.device), size, match_absent=self.match_absent
            )
        ]
        return out, targets

    def set_losses(self, out: DecoderOutput, targets: Sequence[ClipInstances]) -> dict[str, Tensor]:
        """Gives the weighted set loss of frames that were segmented."""
        layers = [*out.aux, (out.logits, out.masks)]
        return self.criterion([(logits, masks[:, :, None]) for logits, masks in layers], targets)

    def session(self, place: ResultPlace) -> LinkingSession:
        """Makes a session that links the frames of one video."""
        return LinkingSession(self, place)

    def recorder(self, session: LinkingSession) -> LinkingRecorder:
        """Gives what explains the results of a session; see ``Recorder``."""
        recorder = LinkingRecorder(self)
        session.observers.append(recorder.orders.append)
        return recorder


def frame_targets(
    instances: ClipInstances, size: Size, *, match_absent: bool
) -> list[ClipInstances]:
    """Splits a clip into targets of its single frames.

    Args:
        instances: N objects over T frames.
        size: (height, width) to pad the masks to.
        match_absent: whether objects stay in the frames where they are absent.

    Returns:
        One per frame, with T = 1. Objects that are never present are dropped.
    """
    seen = instances[instances.present.any(1)].pad_to(*size)
    frames = [seen.frames(t, t + 1) for t in range(seen.num_frames)]
    return frames if match_absent else [frame[frame.present[:, 0]] for frame in frames]


@dataclass
class _Linked:
    """What linking remembers of the frames so far, rows in track order."""

    embeds: Tensor  # (Q, C) of the last frame
    logits: Tensor  # (Q, K+1), summed over frames
    probability: Tensor  # (Q,), summed over foreground pixels
    pixels: Tensor  # (Q,), how many those are
    num_frames: int = 0
    first_mask: int = 0  # frame of the first mask that is kept
    masks: MaskStore = field(default_factory=MaskStore)


class LinkingSession:
    """Segments windows of one video and keeps the rows of the queries linked.

    Memory grows with the area of the masks, not with the frames' pixels; with ``stream`` it does
    not grow.

    Args:
        model: the segmenter.
        place: of the result in the video.
    """

    def __init__(self, model: FrameSegmenter, place: ResultPlace) -> None:
        self.model = model
        self.place = place
        self.image_size: Size | None = None
        self.observers: list[Callable[[Tensor], object]] = []  # told every frame's order (Q,)
        self._linked: _Linked | None = None

    @torch.no_grad()
    def feed(self, frames: Tensor) -> None:
        """Takes the next frames, uint8 ``(t, 3, H, W)``.

        Raises:
            ValueError: if their size differs from that of the frames before.
        """
        size = (frames.shape[-2], frames.shape[-1])
        if self.image_size not in (None, size):
            raise ValueError(f"frames of one video differ in size: {self.image_size} and {size}")
        self.image_size = size
        out = self.model.segment(frames, keep_aux=False)
        for logits, masks, embeds in zip(out.logits, out.masks, out.embeds, strict=True):
            self._link(logits.float(), masks, embeds.float())

    def step(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames and gives the instances in them, ranked by all frames so far."""
        first = self._num_frames
        self.feed(frames)
        return self._instances(range(first, self._num_frames))

    def stream(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames as ``step`` does and keeps no masks of them."""
        window = self.step(frames)
        self._forget_masks()
        return window

    def finish(self) -> VideoInstances:
        """Gives the instances of this clip of the video, ranked by all frames so far."""
        first = 0 if self._linked is None else self._linked.first_mask  # after the streamed frames
        return self._instances(range(max(first, self.place.first), self._num_frames))

    def next_clip(self, indices: Sequence[int] | None = None) -> None:
        """Starts the next clip of the video; the rows of the queries go on.

        Args:
            indices: positions of the clip's frames in the video; they count on by default.
        """
        self.place = self.place.next_clip(self._num_frames, indices)
        self._forget_masks()

    @property
    def _num_frames(self) -> int:
        return 0 if self._linked is None else self._linked.num_frames

    def _forget_masks(self) -> None:
        if self._linked is not None:
            self._linked.masks = MaskStore()
            self._linked.first_mask = self._linked.num_frames

    def _link(self, logits: Tensor, masks: Tensor, embeds: Tensor) -> None:
        """Adds one frame: ``(Q, K+1)``, ``(Q, h, w)``, ``(Q, C)``."""
        if self._linked is None:
            none = torch.zeros(len(logits), device=logits.device)
            self._linked = _Linked(embeds, torch.zeros_like(logits), none, none.clone())
        linked = self._linked
        order = torch.arange(len(logits), device=logits.device)
        if linked.num_frames:
            order = link_step(linked.embeds, embeds)
            logits, masks, embeds = logits[order], masks[order], embeds[order]
        for observe in self.observers:
            observe(order)
        linked.embeds = embeds
        linked.logits += logits
        probability, pixels = foreground_confidence(masks)
        linked.probability += probability
        linked.pixels += pixels
        linked.num_frames += 1
        linked.masks.append(masks)

    @torch.no_grad()
    def _instances(self, frames: range) -> VideoInstances:
        indices, output_size = self.place.indices_for(frames), self.place.size_for(self.image_size)
        linked, image_size = self._linked, self.image_size
        if linked is None or image_size is None or not frames:
            return VideoInstances.empty(output_size, indices)
        settings = self.model.result_settings
        quality = linked.probability / linked.pixels.clamp(min=1)
        scores, labels, rows = select_instances(
            linked.logits / linked.num_frames,
            settings.max_num,
            one_label_per_track=settings.one_label_per_track,
            quality=quality if settings.mask_quality else None,
        )
        unique, inverse = rows.unique(return_inverse=True)
        wanted = unique.tolist()
        padded = self.model.padded_size(image_size)
        tracks: list[list[RLE | None]] = [[] for _ in wanted]
        for frame in frames:
            small = linked.masks.frame(frame - linked.first_mask, wanted)
            encoded = encode_masks(small, padded, image_size, output_size)
            for track, mask in zip(tracks, encoded, strict=True):
                track.append(mask)
        return VideoInstances(
            scores=scores.cpu(),
            labels=labels.cpu(),
            track_ids=rows.cpu(),
            masks=[tracks[row] for row in inverse.tolist()],
            image_size=output_size,
            frame_indices=indices,
        )
