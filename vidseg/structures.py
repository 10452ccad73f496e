"""Plain containers that rooms hand to each other: feature shapes, ground truth and predictions.

Shapes: N instances, T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import rle as rle_ops
from .rle import RLE

__all__ = [
    "ClipInstances",
    "Explanation",
    "FrameAttention",
    "QueryRows",
    "ShapeSpec",
    "VideoInstances",
    "masks_to_boxes",
]


@dataclass(frozen=True)
class ShapeSpec:
    """What a module promises about a feature map before any tensor exists.

    Args:
        channels: number of channels.
        stride: input pixels per feature pixel.
    """

    channels: int
    stride: int


@dataclass
class ClipInstances:
    """Ground truth of one clip.

    Args:
        masks: bool ``(N, T, H, W)``.
        labels: contiguous class numbers, int64 ``(N,)``.
        present: whether the object is annotated in the frame, bool ``(N, T)``.

    Raises:
        ValueError: if the shapes do not agree.
    """

    masks: Tensor
    labels: Tensor
    present: Tensor

    def __post_init__(self) -> None:
        """Checks that all fields describe the same instances and frames."""
        if self.masks.ndim != 4:
            raise ValueError(f"masks have shape {tuple(self.masks.shape)}, expected (N, T, H, W)")
        num, frames = self.masks.shape[:2]
        if tuple(self.labels.shape) != (num,):
            raise ValueError(f"labels have shape {tuple(self.labels.shape)}, expected ({num},)")
        if tuple(self.present.shape) != (num, frames):
            shape = tuple(self.present.shape)
            raise ValueError(f"present has shape {shape}, expected ({num}, {frames})")

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.labels)

    def __getitem__(self, rows: Any) -> ClipInstances:
        """Selects instances by an int, slice, list, index tensor or bool tensor."""
        rows = _as_rows(rows)
        return ClipInstances(self.masks[rows], self.labels[rows], self.present[rows])

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.masks.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Mask size (H, W)."""
        return self.masks.shape[2], self.masks.shape[3]

    def to(self, device: torch.device | str) -> ClipInstances:
        """Gives a copy whose tensors live on ``device``."""
        return ClipInstances(self.masks.to(device), self.labels.to(device), self.present.to(device))

    def pad_to(self, height: int, width: int) -> ClipInstances:
        """Gives a copy whose masks are filled with background below and to the right.

        Raises:
            ValueError: if the masks are larger than the wanted size.
        """
        below, right = height - self.masks.shape[2], width - self.masks.shape[3]
        if below < 0 or right < 0:
            raise ValueError(f"masks of {self.image_size} do not fit into {(height, width)}")
        masks = F.pad(self.masks, (0, right, 0, below)) if below or right else self.masks
        return ClipInstances(masks, self.labels, self.present)

    def frames(self, start: int, stop: int) -> ClipInstances:
        """Gives the instances in frames ``start`` to ``stop`` (excluded); all instances stay."""
        return ClipInstances(self.masks[:, start:stop], self.labels, self.present[:, start:stop])


@dataclass
class VideoInstances:
    """Predicted tracks of a video or of a window of it; memory does not grow with pixels.

    Args:
        scores: confidence, float ``(N,)``.
        labels: contiguous class numbers, int64 ``(N,)``.
        track_ids: identity of every row over the video, int64 ``(N,)``.
        masks: per instance, per frame: RLE at ``image_size``, or ``None`` where absent.
        image_size: (H, W) of the original video.
        frame_indices: positions in the video of the T frames.

    Raises:
        ValueError: if the lengths do not agree.
    """

    scores: Tensor
    labels: Tensor
    track_ids: Tensor
    masks: list[list[RLE | None]]
    image_size: tuple[int, int]
    frame_indices: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Checks that all fields describe the same instances and frames."""
        self.image_size = (int(self.image_size[0]), int(self.image_size[1]))
        self.frame_indices = [int(index) for index in self.frame_indices]
        num = len(self.masks)
        for name in ("scores", "labels", "track_ids"):
            if tuple(getattr(self, name).shape) != (num,):
                shape = tuple(getattr(self, name).shape)
                raise ValueError(f"{name} have shape {shape}, but there are {num} rows of masks")
        wrong = [len(row) for row in self.masks if len(row) != len(self.frame_indices)]
        if wrong:
            frames = len(self.frame_indices)
            raise ValueError(f"a track has {wrong[0]} masks, but there are {frames} frame indices")

    @classmethod
    def empty(
        cls, image_size: tuple[int, int], frame_indices: Sequence[int] = ()
    ) -> VideoInstances:
        """Gives a prediction without any track."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(torch.zeros(0), none, none.clone(), [], image_size, list(frame_indices))

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.masks)

    def __getitem__(self, rows: Any) -> VideoInstances:
        """Selects tracks by an int, slice, list, index tensor or bool tensor."""
        index = torch.arange(len(self))[_to_cpu(_as_rows(rows))].tolist()
        return VideoInstances(
            self.scores[index],
            self.labels[index],
            self.track_ids[index],
            [self.masks[row] for row in index],
            self.image_size,
            self.frame_indices,
        )

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.frame_indices)

    def masks_tensor(self) -> Tensor:
        """Decodes all masks to bool ``(N, T, H, W)`` on the CPU; absent frames are background."""
        result = np.zeros((len(self), self.num_frames, *self.image_size), dtype=bool)
        for row, track in enumerate(self.masks):
            for frame, mask in enumerate(track):
                if mask is not None:
                    result[row, frame] = rle_ops.decode(mask)
        return torch.from_numpy(result)

    def to_results(
        self, video_id: Any, category_ids: Sequence[int] | Mapping[int, int]
    ) -> list[dict[str, Any]]:
        """Gives the json records of the results file that evaluation servers take.

        Args:
            video_id: id of the video in the data set.
            category_ids: contiguous label -> category id of the data set.

        Raises:
            ValueError: if a label has no category id.
        """
        scores, labels = self.scores.tolist(), self.labels.tolist()
        known = category_ids if isinstance(category_ids, Mapping) else range(len(category_ids))
        unknown = sorted({label for label in labels if label not in known})
        if unknown:
            raise ValueError(
                f"label {unknown[0]} of a track has no category id: there are {len(category_ids)}"
            )
        return [
            {
                "video_id": video_id,
                "category_id": int(category_ids[label]),
                "score": float(score),
                "segmentations": [rle_ops.to_text(mask) for mask in track],
            }
            for score, label, track in zip(scores, labels, self.masks, strict=True)
        ]


@dataclass
class FrameAttention:
    """Where the model looked in one frame, for each of n tracks.

    Args:
        maps: share of each cell in what a frame query read, float32 ``(n, h, w)``: sum 1 over the
            cells, or all 0 for a track that no query stands for.
        covered: (height, width) that the cells span, in units of the picture's: 1 or a little
            more, since frames are padded below and to the right.
        queries: number of that query for each track, -1 for none.
        shares: its share in what the track read of the frame's queries, 0 to 1.
    """

    maps: Tensor
    covered: tuple[float, float]
    queries: list[int]
    shares: list[float]


@dataclass
class QueryRows:
    """What became of the rows of a tracker's queries in one frame.

    The first ``num_tracks`` rows carry the tracks of the frame before, the ``num_anchors`` rows
    after them stand for one possible new object each.

    Args:
        num_tracks: P.
        num_anchors: Q.
        rows: that stayed, at most P + Q; a row from P on is a birth.
        ids: track of each of them.
        visible: whether its object was seen, else it is being waited for.
        ended: tracks that were given up in this frame.
    """

    num_tracks: int
    num_anchors: int
    rows: list[int]
    ids: list[int]
    visible: list[bool]
    ended: list[int] = field(default_factory=list)


@dataclass
class Explanation:
    """What a model read to find the tracks of a video.

    Args:
        track_ids: n of the result's tracks, best first.
        attention: goes through the video once more and yields every frame's attention in order.
        attention_source: what the maps are, in words.
        frame_weights: share of each frame in a track's class, float32 ``(n, T)``, sum 1; ``None``
            where the model does not weight its frames.
        rows: the tracker's queries, frame by frame; ``None`` for a model without them.
    """

    track_ids: list[int]
    attention: Callable[[], Iterator[FrameAttention]]
    attention_source: str
    frame_weights: Tensor | None = None
    rows: list[QueryRows] | None = None


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Gives the tight boxes ``x0, y0, x1, y1`` (x1, y1 excluded) of bool masks; 0 if empty.

    Shape:
        - input: ``(..., H, W)``
        - output: int64 ``(..., 4)``
    """
    sides = []
    for lines in (masks.any(dim=-2), masks.any(dim=-1)):  # columns (..., W), rows (..., H)
        length = lines.shape[-1]
        place = torch.arange(length, device=masks.device)
        first = torch.where(lines, place, length).amin(dim=-1)
        last = torch.where(lines, place + 1, 0).amax(dim=-1)
        sides.append((torch.where(last > 0, first, 0), last))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=-1)


def _as_rows(rows: Any) -> Any:
    """Turns a single row number into a slice, so that a selection keeps its dimensions."""
    if isinstance(rows, (int, np.integer)):
        return slice(int(rows), None if rows == -1 else int(rows) + 1)
    return rows


def _to_cpu(rows: Any) -> Any:
    return rows.cpu() if isinstance(rows, Tensor) else rows
