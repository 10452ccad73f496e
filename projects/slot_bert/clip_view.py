"""A clip and what a model made of it, as arrays for pictures, videos and files.

Shapes: T frames, K slots, O true objects, H W pixels, R R pixels of the reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from vidseg.assignment import linear_sum_assignment
from vidseg.errors import DataError
from vidseg.video.draw import track_color

__all__ = [
    "ClipView",
    "Color",
    "SlotFrame",
    "as_array",
    "as_pictures",
    "match_objects",
    "slot_color",
]

_NUM_COLORS = 20

Color = tuple[int, int, int]


def slot_color(slot: int) -> Color:
    """Gives the colour of a slot, one of 20 and the same in every picture, video and run."""
    return track_color(slot % _NUM_COLORS)


@dataclass(frozen=True)
class SlotFrame:
    """What is known of one frame.

    Attributes:
        image: uint8 ``(H, W, 3)``.
        masks: soft masks, float ``(K, h, w)`` of any size.
        segmentation: slot of every pixel, int ``(H, W)``.
        reconstruction: uint8 ``(R, R, 3)``; None if the model draws none.
        label_map: true objects, int ``(H, W)``: 0 background, -1 unknown; None without truth.
        slots_of_objects: the slot in whose colour a true object is shown.
    """

    image: np.ndarray
    masks: np.ndarray
    segmentation: np.ndarray
    reconstruction: np.ndarray | None = None
    label_map: np.ndarray | None = None
    slots_of_objects: Mapping[int, int] = field(default_factory=dict)

    @property
    def num_slots(self) -> int:
        """K."""
        return len(self.masks)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class ClipView:
    """What the pictures of a clip show.

    Attributes:
        frames: uint8 ``(T, H, W, 3)``.
        masks: soft masks, float32 ``(T, K, H, W)``, sum 1 over K.
        segmentation: slot of every pixel, int ``(T, H, W)``.
        reconstruction: uint8 ``(T, R, R, 3)``; None if the model draws none.
        label_maps: true objects, int ``(T, H, W)``: 0 background, -1 unknown; None without truth.
    """

    frames: np.ndarray
    masks: np.ndarray
    segmentation: np.ndarray
    reconstruction: np.ndarray | None = None
    label_maps: np.ndarray | None = None

    @classmethod
    def of(
        cls, frames: Any, prediction: Mapping[str, Any], label_maps: Any | None = None
    ) -> ClipView:
        """Puts the frames of a clip and the prediction for it together.

        Args:
            frames: ``(T, C, H, W)``, uint8 or float in [0, 1]; C is 1, 3 or 4.
            prediction: ``segmentation`` ``(T, H, W)``, and if known ``masks`` ``(T, K, H, W)`` and
                ``reconstruction`` ``(T, 3, R, R)``, arrays or tensors. Without ``masks``, those of
                the segmentation are shown.
            label_maps: the truth, ``(T, H, W)``.

        Raises:
            DataError: if frames and prediction differ in length or size.
        """
        pictures = as_pictures(frames)
        segmentation = as_array(prediction["segmentation"])
        if segmentation.shape != pictures.shape[:3]:
            raise DataError(
                f"a segmentation of shape {segmentation.shape} does not belong to frames of shape "
                f"{pictures.shape[:3]}"
            )
        masks = prediction.get("masks")
        if masks is None:
            slots = np.arange(int(segmentation.max(initial=0)) + 1)
            masks = segmentation[:, None] == slots[:, None, None]
        drawn = prediction.get("reconstruction")
        return cls(
            pictures,
            as_array(masks).astype(np.float32),
            segmentation,
            None if drawn is None else as_pictures(drawn),
            None if label_maps is None else as_array(label_maps),
        )

    def __len__(self) -> int:
        """T."""
        return len(self.frames)

    def __getitem__(self, number: int) -> SlotFrame:
        """Gives one frame."""
        drawn, truth = self.reconstruction, self.label_maps
        return SlotFrame(
            self.frames[number],
            self.masks[number],
            self.segmentation[number],
            None if drawn is None else drawn[number],
            None if truth is None else truth[number],
            self.slots_of_objects,
        )

    @cached_property
    def slots_of_objects(self) -> dict[int, int]:
        """The slot of each true object, see ``match_objects``."""
        return {} if self.label_maps is None else match_objects(self.label_maps, self.segmentation)


def as_array(values: Any) -> np.ndarray:
    """Gives an array; tensors of any device and of types that NumPy lacks are taken over."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def as_pictures(video: Any) -> np.ndarray:
    """Gives ``(T, C, H, W)``, uint8 or float in [0, 1], as uint8 ``(T, H, W, 3)``."""
    values = as_array(video)
    if values.dtype != np.uint8:
        values = (np.nan_to_num(values) * 255).round().clip(0, 255).astype(np.uint8)
    values = values[:, :3] if values.shape[1] != 1 else values.repeat(3, axis=1)
    return values.transpose(0, 2, 3, 1)


def match_objects(label_maps: np.ndarray, segmentation: np.ndarray) -> dict[int, int]:
    """Gives each true object a slot of its own, so that the sum of IoU over the clip is largest.

    Args:
        label_maps: ``(T, H, W)``: 0 background, -1 unknown.
        segmentation: ``(T, H, W)``.

    Returns:
        A slot for as many objects as there are slots that lie on one.
    """
    known = label_maps >= 0
    labels, slots = label_maps[known], segmentation[known]
    if not labels.size:
        return {}
    shape = int(labels.max()) + 1, int(slots.max()) + 1
    table = np.bincount(labels.astype(np.int64) * shape[1] + slots, minlength=shape[0] * shape[1])
    table = table.reshape(shape)
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    iou = (table / np.maximum(union, 1))[1:]
    rows, columns = linear_sum_assignment(iou, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row + 1: column for row, column in pairs if iou[row, column] > 0}
