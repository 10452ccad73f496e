"""Frames, ground truth and predictions in detectron2's containers, and back.

detectron2 holds one image at a time: an ``ImageList`` of frames, ``Instances`` per frame. Rows of
the same ``gt_ids`` are one object of a clip; -1 says that it is absent, as in the video systems
that are built on detectron2.

Shapes: T frames, N instances, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg import rle
from vidseg.errors import DataError
from vidseg.structures import ClipInstances, VideoInstances, masks_to_boxes

from .available import require

__all__ = [
    "from_clip_instances",
    "from_image_list",
    "to_clip_instances",
    "to_frame_instances",
    "to_image_list",
    "to_video_instances",
    "to_video_output",
]

_ABSENT = -1


def to_image_list(frames: Sequence[Tensor] | Tensor, *, size_divisibility: int = 0) -> Any:
    """Gives frames as an ``ImageList``, padded below and to the right with zeros.

    Args:
        frames: ``(T, C, H, W)``, or frames ``(C, H, W)`` that may differ in size.
        size_divisibility: height and width are padded to multiples of it; 0 for any.

    Raises:
        ValueError: if there is no frame.
    """
    if not len(frames):
        raise ValueError("an ImageList needs a frame, there is none")
    step = max(size_divisibility, 1)
    sizes = [(int(frame.shape[-2]), int(frame.shape[-1])) for frame in frames]
    height, width = (-(-max(side) // step) * step for side in zip(*sizes, strict=True))
    padded = [
        F.pad(frame, (0, width - frame.shape[-1], 0, height - frame.shape[-2])) for frame in frames
    ]
    return require("structures").ImageList(torch.stack(padded), sizes)


def from_image_list(images: Any) -> list[Tensor]:
    """Gives the frames ``(C, H, W)`` of an ``ImageList`` without their padding."""
    return [
        images.tensor[index, ..., :height, :width]
        for index, (height, width) in enumerate(images.image_sizes)
    ]


def to_clip_instances(frames: Sequence[Any]) -> ClipInstances:
    """Joins the ground truth of the frames of a clip.

    Rows with the same ``gt_ids`` are one object; without that field, rows of the same number are.
    An object is present where its id is there and its mask is not empty. Objects that are present
    nowhere, or whose class is negative (not among the classes that are learnt), are left out.

    Args:
        frames: T ``Instances`` with ``gt_classes`` and ``gt_masks`` (``BitMasks``, ``PolygonMasks``
            or a tensor ``(N, H, W)``), all of one image size.

    Raises:
        DataError: if masks are missing, or frames contradict each other.
    """
    if not frames:
        raise DataError("a clip has no frames with instances")
    sizes = {_size(frame) for frame in frames}
    if len(sizes) > 1:
        raise DataError(f"the instances of one clip have several image sizes: {sorted(sizes)}")
    height, width = sizes.pop()
    ids = _ids(frames)
    seen = [key for row in ids for key in row if key != _ABSENT]
    place = {key: index for index, key in enumerate(dict.fromkeys(seen))}
    masks = torch.zeros(len(place), len(frames), height, width, dtype=torch.bool)
    labels = torch.full((len(place),), _ABSENT, dtype=torch.int64)
    for index, (frame, row) in enumerate(zip(frames, ids, strict=True)):
        kept = [number for number, key in enumerate(row) if key != _ABSENT]
        if not kept:
            continue
        if len({row[number] for number in kept}) < len(kept):
            raise DataError(f"frame {index} of a clip has two objects of the same gt_ids: {row}")
        rows = torch.tensor([place[row[number]] for number in kept])
        classes = frame.gt_classes[kept].to("cpu", torch.int64)
        known = labels[rows]
        if bool(((known != _ABSENT) & (known != classes)).any()):
            raise DataError(f"an object of a clip changes its class (gt_classes) in frame {index}")
        labels[rows] = classes
        masks[rows, index] = _masks(frame, (height, width))[kept]
    present = masks.flatten(2).any(2)
    return ClipInstances(masks, labels, present)[present.any(1) & (labels >= 0)]


def from_clip_instances(instances: ClipInstances) -> list[Any]:
    """Gives the ground truth of a clip as ``Instances`` per frame, all with N rows in one order.

    Fields: ``gt_boxes``, ``gt_classes``, ``gt_masks`` (``BitMasks``) and ``gt_ids``, which counts
    the objects of the clip from 0 and is -1 in frames where one is absent.
    """
    structures = require("structures")
    boxes = masks_to_boxes(instances.masks).float()
    ids = torch.arange(len(instances), device=instances.labels.device)
    frames = []
    for index in range(instances.num_frames):
        frame = structures.Instances(instances.image_size)
        frame.gt_boxes = structures.Boxes(boxes[:, index])
        frame.gt_classes = instances.labels
        frame.gt_masks = structures.BitMasks(instances.masks[:, index])
        frame.gt_ids = torch.where(instances.present[:, index], ids, _ABSENT)
        frames.append(frame)
    return frames


def to_frame_instances(tracks: VideoInstances) -> list[Any]:
    """Gives the predictions of every frame, for evaluators of images.

    Fields: ``pred_boxes``, ``scores``, ``pred_classes``, ``pred_masks`` bool ``(n, H, W)`` and
    ``pred_ids``, the tracks. What is absent in a frame has no row there.
    """
    structures = require("structures")
    height, width = tracks.image_size
    frames = []
    for index in range(tracks.num_frames):
        seen = {
            row: mask
            for row, mask in enumerate(track[index] for track in tracks.masks)
            if mask is not None and rle.area(mask)
        }
        rows = list(seen)
        masks = torch.zeros(len(rows), height, width, dtype=torch.bool)
        for row, mask in enumerate(seen.values()):
            masks[row] = torch.from_numpy(rle.decode(mask)).bool()
        frame = structures.Instances((height, width))
        frame.pred_boxes = structures.Boxes(masks_to_boxes(masks).float())
        frame.scores = tracks.scores[rows]
        frame.pred_classes = tracks.labels[rows]
        frame.pred_masks = masks
        frame.pred_ids = tracks.track_ids[rows]
        frames.append(frame)
    return frames


def to_video_output(tracks: VideoInstances) -> dict[str, Any]:
    """Gives tracks as the video systems on detectron2 return them for their evaluators.

    Keys: ``image_size`` (H, W), ``pred_scores``, ``pred_labels`` and ``pred_ids`` (lists of
    numbers), ``pred_masks`` (a list of bool ``(T, H, W)``, on the CPU), ``task``, and ``tracks``:
    the prediction itself, from which vidseg's evaluators score without decoding a mask.
    """
    return {
        "image_size": tracks.image_size,
        "pred_scores": tracks.scores.tolist(),
        "pred_labels": tracks.labels.tolist(),
        "pred_masks": list(tracks.masks_tensor()),
        "pred_ids": tracks.track_ids.tolist(),
        "task": "vis",
        "tracks": tracks,
    }


def to_video_instances(output: Any) -> VideoInstances:
    """Gives the tracks in what a model of either world returned for one video or image.

    Args:
        output: ``VideoInstances``; a dict like that of ``to_video_output``, ``tracks`` and
            ``pred_ids`` optional; or a dict with the ``instances`` of an image, which becomes a
            video of one frame.

    Raises:
        DataError: if it is none of them.
    """
    if isinstance(output, VideoInstances):
        return output
    if isinstance(output, Mapping) and isinstance(output.get("tracks"), VideoInstances):
        tracks: VideoInstances = output["tracks"]
        return tracks
    if isinstance(output, Mapping) and "pred_masks" in output and "pred_scores" in output:
        return _from_video_output(output)
    if isinstance(output, Mapping) and "instances" in output:
        return _from_instances(output["instances"])
    found = ", ".join(map(str, output)) if isinstance(output, Mapping) else type(output).__name__
    raise DataError(
        f"a prediction holds {found or 'nothing'}; expected pred_scores, pred_labels and pred_masks"
        " of a video, or the instances of an image"
    )


def _from_video_output(output: Mapping[str, Any]) -> VideoInstances:
    masks = [rle.encode(_as_bool(mask)) for mask in output["pred_masks"]]  # each (T, H, W)
    num = len(masks)
    return _tracks(
        masks,
        output["pred_scores"],
        output["pred_labels"],
        output.get("pred_ids", range(num)),
        output["image_size"],
        len(masks[0]) if masks else 0,
    )


def _from_instances(frame: Any) -> VideoInstances:
    if not frame.has("pred_masks"):
        raise DataError("the instances of an image have no masks (pred_masks); set MODEL.MASK_ON")
    masks = [[rle.encode(_as_bool(mask))] for mask in frame.pred_masks]
    ids = frame.pred_ids if frame.has("pred_ids") else range(len(masks))
    return _tracks(masks, frame.scores, frame.pred_classes, ids, _size(frame), 1)


def _tracks(
    masks: list[list[rle.RLE]], scores: Any, labels: Any, ids: Any, size: Any, num_frames: int
) -> VideoInstances:
    cut = [[mask if rle.area(mask) else None for mask in track] for track in masks]
    return VideoInstances(
        scores=torch.as_tensor(scores, dtype=torch.float32).cpu(),
        labels=torch.as_tensor(labels, dtype=torch.int64).cpu(),
        track_ids=torch.as_tensor(ids, dtype=torch.int64).cpu(),
        masks=cut,
        image_size=(int(size[0]), int(size[1])),
        frame_indices=list(range(num_frames)),
    )


def _as_bool(mask: Any) -> np.ndarray:
    """Takes masks as bool, 0/1 or probabilities, which some systems leave unthresholded."""
    array = mask.detach().cpu() if isinstance(mask, Tensor) else torch.as_tensor(mask)
    is_soft = array.is_floating_point()
    return (array > 0.5 if is_soft else array != 0).numpy()


def _size(frame: Any) -> tuple[int, int]:
    height, width = frame.image_size
    return int(height), int(width)


def _ids(frames: Sequence[Any]) -> list[list[int]]:
    """Gives the id of every row of every frame."""
    if all(frame.has("gt_ids") for frame in frames):
        return [frame.gt_ids.tolist() for frame in frames]
    counts = [len(frame.gt_classes) if frame.has("gt_classes") else 0 for frame in frames]
    if len(set(counts)) > 1:
        raise DataError(
            f"the frames of a clip have {counts} objects and no gt_ids that say which are the same"
        )
    return [list(range(count)) for count in counts]


def _masks(frame: Any, size: tuple[int, int]) -> Tensor:
    """Gives the masks of a frame, bool ``(N, H, W)`` on the CPU."""
    if not frame.has("gt_masks"):
        raise DataError("the instances have no masks (gt_masks); set MODEL.MASK_ON True")
    masks = frame.gt_masks
    if hasattr(masks, "polygons"):
        decoded = [rle.decode(rle.from_polygons(polygons, *size)) for polygons in masks.polygons]
        found = torch.from_numpy(np.stack(decoded).astype(bool))
    else:
        found = torch.as_tensor(getattr(masks, "tensor", masks)).cpu() != 0
    if tuple(found.shape[1:]) != size:
        raise DataError(f"masks have size {tuple(found.shape[1:])}, their image {size}")
    return found
