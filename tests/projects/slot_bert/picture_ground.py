"""Clips with known slots for tests of pictures, videos and sessions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.projects.slot_bert.clip_view import SlotFrame

NUM_SLOTS = 3


def moving_squares(num_frames: int = 6, side: int = 32) -> tuple[Tensor, np.ndarray]:
    """Gives frames uint8 ``(T, 3, side, side)`` and label maps: a red and a blue square on grey."""
    frames = torch.full((num_frames, 3, side, side), 90, dtype=torch.uint8)
    labels = np.zeros((num_frames, side, side), dtype=np.int16)
    for number in range(num_frames):
        for label, (top, left) in enumerate(((2, 2 + number), (side - 10, side - 10 - number)), 1):
            color = torch.tensor([220, 20, 20] if label == 1 else [20, 20, 220])
            frames[number, :, top : top + 8, left : left + 8] = color[:, None, None]
            labels[number, top : top + 8, left : left + 8] = label
    return frames, labels


def prediction_of(labels: np.ndarray, slots: tuple[int, ...] = (1, 2, 0)) -> dict[str, Tensor]:
    """Gives a prediction that finds label i in slot ``slots[i]``, with masks of 0.9."""
    segmentation = torch.from_numpy(np.array(slots)[labels])
    sharp = F.one_hot(segmentation, NUM_SLOTS).permute(0, 3, 1, 2).float()
    masks = 0.85 * sharp + 0.05
    return {
        "segmentation": segmentation,
        "masks": masks,
        "attn": F.avg_pool2d(masks, 4),
        "slots": torch.randn(len(labels), NUM_SLOTS, 4),
        "reconstruction": torch.rand(len(labels), 3, 16, 16),
    }


def frame_of(side: int = 32, *, has_reconstruction: bool = True) -> SlotFrame:
    """Gives one frame with its slots."""
    frames, labels = moving_squares(1, side)
    found = prediction_of(labels)
    drawn = np.zeros((16, 16, 3), np.uint8) if has_reconstruction else None
    image = frames[0].permute(1, 2, 0).numpy()
    return SlotFrame(image, found["masks"][0].numpy(), found["segmentation"][0].numpy(), drawn)


class ColorSlots:
    """A model whose slots are colours: grey, red, blue.

    Attributes:
        calls: number of frames of each call, and of those before it.
    """

    def __init__(self) -> None:
        self.perception: Any = self
        self.calls: list[tuple[int, int]] = []

    def padded(self, video: Tensor) -> Tensor:
        return F.pad(video, (0, 0, 0, 8))

    def stream(self, frames: Tensor, state: int | None = None) -> tuple[dict[str, Tensor], int]:
        self.calls.append((len(frames), state or 0))
        red, _, blue = frames.float().unbind(1)
        distance = torch.stack([(red - blue).abs(), 255 - red + blue, 255 - blue + red], 1)
        masks = (-distance / 20).softmax(1)
        outputs = {
            "masks": masks,
            "segmentation": masks.argmax(1),
            "attn": F.avg_pool2d(F.pad(masks, (0, 0, 0, 8)), 4),
            "slots": torch.zeros(len(frames), 3, 4),
            "reconstruction": frames.float()[..., ::2, ::2] / 255,
        }
        return outputs, (state or 0) + len(frames)
