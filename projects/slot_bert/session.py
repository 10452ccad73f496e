"""A video of any length on its way through the model: every slot is a track.

Shapes: t frames of a step, K slots, N tracks, H W pixels of the result, h w of the model's masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidseg import rle
from vidseg.data.transforms import Resize
from vidseg.errors import DataError, UserError
from vidseg.modeling.meta_arch import ResultPlace
from vidseg.rle import RLE
from vidseg.structures import FrameAttention, QueryRows, VideoInstances

from .perception import SlotPerception

__all__ = ["SlotModel", "SlotRecorder", "SlotSession", "check_numbers", "resize", "segment"]


class SlotModel(Protocol):
    """What a session needs of the model."""

    perception: SlotPerception

    def stream(self, frames: Tensor, state: Any = None) -> tuple[dict[str, Tensor], Any]:
        """Takes the next frames ``(t, 3, H, W)``; gives one entry of each output per frame."""
        ...


class SlotSession:
    """Follows slots from window to window; a track is a slot, its id the slot's number.

    The score of a track is how clearly its pixels belong to it: the mean of ``p / (p + q)`` over
    them, where p is the probability of its slot and q that of the runner-up; 0.5 is a tie. All
    labels are 0, as nobody told the model any classes. Slots without a pixel give no track.

    The slots of the last frame are carried on. What grows with the video are the RLE masks.

    Args:
        model: with its weights.
        place: of the result in the video.
        size: (height, width) at which the model sees frames; that of the frames by default.
        max_num: tracks of the result; those with most pixels are taken.
    """

    def __init__(
        self,
        model: SlotModel,
        place: ResultPlace,
        *,
        size: tuple[int, int] | None = None,
        max_num: int = 20,
    ) -> None:
        self._model, self._place, self._max_num = model, place, max_num
        self._input_size = size
        self._state: Any = None
        self._size: tuple[int, int] | None = None
        self._num_frames = 0
        self._masks: list[list[RLE | None]] = []  # by slot
        self._first_mask = 0  # frame of the first mask that is kept
        self._clearness = torch.zeros(0, dtype=torch.float64)  # by slot, sum over its pixels
        self._pixels = torch.zeros(0, dtype=torch.float64)  # by slot, at the model's resolution

    @torch.no_grad()
    def feed(self, frames: Tensor) -> None:
        """Takes the next frames, uint8 ``(t, 3, H, W)``.

        Raises:
            DataError: if the frames' size differs from before.
            UserError: if the weights have diverged.
        """
        height, width = frames.shape[-2:]
        size = (height, width)
        if self._size is not None and self._size != size:
            raise DataError(
                f"frames of {width}x{height} come after frames of "
                f"{self._size[1]}x{self._size[0]} pixels in one video"
            )
        self._size = size
        inputs = resize(frames, self._input_size)
        outputs, self._state = self._model.stream(inputs, self._state)
        check_numbers(outputs, self._num_frames)
        self._count(outputs["masks"])
        found = segment(outputs, self._place.size_for(size))
        self._masks = self._masks or [[] for _ in range(outputs["masks"].shape[1])]
        for slots in found:
            for slot, track in enumerate(self._masks):
                mask = slots == slot
                track.append(rle.encode(mask) if mask.any() else None)
        self._num_frames += len(frames)

    def step(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames; gives the tracks in them, scored by all frames so far."""
        first = self._num_frames
        self.feed(frames)
        return self._instances(range(first, self._num_frames))

    def stream(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames as ``step`` does and keeps no masks of them."""
        window = self.step(frames)
        self._forget_masks()
        return window

    def finish(self) -> VideoInstances:
        """Gives the tracks of this clip of the video, scored by all frames so far."""
        first = max(self._first_mask, self._place.first)  # after the streamed frames
        return self._instances(range(first, self._num_frames))

    def next_clip(self, indices: Sequence[int] | None = None) -> None:
        """Starts the next clip of the video; the slots go on.

        Args:
            indices: positions of the clip's frames in the video; they count on by default.
        """
        self._place = self._place.next_clip(self._num_frames, indices)
        self._forget_masks()

    def _forget_masks(self) -> None:
        self._masks = [[] for _ in self._masks]
        self._first_mask = self._num_frames

    def _count(self, masks: Tensor) -> None:
        """Sums up how clearly pixels belong to their slots, ``(t, K, h, w)``."""
        num_slots = masks.shape[1]
        best = masks.float().topk(min(2, num_slots), dim=1)
        slots = best.indices[:, 0].flatten().cpu()
        clear = (best.values[:, 0] / best.values.sum(1).clamp(min=1e-12)).flatten().double().cpu()
        if not len(self._pixels):
            self._clearness = torch.zeros(num_slots, dtype=torch.float64)
            self._pixels = self._clearness.clone()
        self._clearness += torch.bincount(slots, clear, minlength=num_slots)
        self._pixels += torch.bincount(slots, minlength=num_slots)

    def _instances(self, frames: range) -> VideoInstances:
        size, indices = self._place.size_for(self._size), self._place.indices_for(frames)
        start = frames.start - self._first_mask
        tracks = [track[start : start + len(frames)] for track in self._masks]
        seen = [slot for slot, track in enumerate(tracks) if any(mask for mask in track)]
        largest = sorted(seen, key=lambda slot: -float(self._pixels[slot]))[: self._max_num]
        kept = torch.tensor(sorted(largest), dtype=torch.int64)
        if not len(kept):
            return VideoInstances.empty(size, indices)
        scores = self._clearness[kept] / self._pixels[kept].clamp(min=1)
        return VideoInstances(
            scores=scores.float(),
            labels=torch.zeros_like(kept),
            track_ids=kept,
            masks=[tracks[slot] for slot in kept.tolist()],
            image_size=size,
            frame_indices=indices,
        )


class SlotRecorder:
    """Shows where each slot looked: its attention in the last iteration.

    Args:
        model: with its weights.
        size: as in ``SlotSession``.
    """

    attention_source = (
        "slot attention, last iteration: how much of each token goes to the slot of the track, "
        "whose number is that of the query"
    )

    def __init__(self, model: SlotModel, *, size: tuple[int, int] | None = None) -> None:
        self._model, self._size = model, size
        self._state: Any = None

    def recording(self) -> AbstractContextManager[None]:
        """Surrounds every call of the session; nothing has to be listened to."""
        return nullcontext()

    @torch.no_grad()
    def attention(
        self, frames: Tensor, start: int, track_ids: Sequence[int]
    ) -> list[FrameAttention]:
        """Tells where slots looked in a window; see ``Recorder``. Windows come in order."""
        before = None if start == 0 else self._state
        inputs = resize(frames, self._size)
        outputs, self._state = self._model.stream(inputs, before)
        maps = outputs["attn"][:, list(track_ids)].float().cpu()
        total = maps.sum((2, 3), keepdim=True)
        maps = torch.where(total > 0, maps / total.clamp(min=1e-12), 0)
        padded = self._model.perception.padded(inputs[None]).shape
        covered = (padded[-2] / inputs.shape[-2], padded[-1] / inputs.shape[-1])
        queries, shares = list(track_ids), [1.0] * len(track_ids)
        return [FrameAttention(one, covered, queries, shares) for one in maps]

    def frame_weights(self, track_ids: Sequence[int]) -> None:
        """Gives nothing: there are no classes that frames could count for."""

    def rows(self) -> list[QueryRows] | None:
        """Gives nothing: no query comes or goes."""
        return None


def resize(frames: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Brings frames to the size at which the model sees them.

    Args:
        frames: uint8 ``(t, 3, H, W)``.
        size: (h, w); with None or (0, 0) frames stay as they are.

    Returns:
        uint8 ``(t, 3, h, w)``, resized as the frames of data sets are.
    """
    before = (int(frames.shape[-2]), int(frames.shape[-1]))
    if size is None or not all(size) or before == tuple(size):
        return frames
    change = Resize(before, (size[0], size[1]))
    images = frames.permute(0, 2, 3, 1).cpu().numpy()
    small = np.stack([change.image(image) for image in images])
    return torch.from_numpy(small).permute(0, 3, 1, 2)


def check_numbers(outputs: dict[str, Tensor], first: int) -> None:
    """Checks that masks ``(t, K, h, w)`` are numbers.

    Args:
        outputs: with ``masks``.
        first: number of their first frame.

    Raises:
        UserError: if not; names the frame.
    """
    is_fine = outputs["masks"].isfinite().flatten(1).all(1)
    if not is_fine.all():
        frame = first + int(is_fine.int().argmin())
        raise UserError(f"the masks of frame {frame} are no numbers; the weights have diverged")


def segment(outputs: dict[str, Tensor], size: tuple[int, int]) -> np.ndarray:
    """Gives the slot of every pixel at another size than the model's; soft masks are enlarged.

    Args:
        outputs: ``masks`` ``(t, K, h, w)`` and ``segmentation`` ``(t, h, w)``.
        size: (H, W).

    Returns:
        int64 ``(t, H, W)``.
    """
    masks = outputs["masks"]
    if tuple(masks.shape[-2:]) == tuple(size):
        return outputs["segmentation"].cpu().numpy().astype(np.int64)
    # Frame by frame: all slots of a window at full size may be gigabytes.
    frames = [
        F.interpolate(one[None].float(), size, mode="bilinear", align_corners=False)[0].argmax(0)
        for one in masks
    ]
    return torch.stack(frames).cpu().numpy()
