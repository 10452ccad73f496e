"""Records to samples: chosen frames are decoded, augmented and returned with their masks.

A mapper holds no state: everything random comes from the generator passed with the record.

Shapes: T frames, N instances, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg import rle
from vidseg.errors import DataError
from vidseg.structures import ClipInstances

from .augmentation import ClipAugmentation, ClipPlan, sample_frames
from .catalog import Record, Records
from .frame_files import load_frames, read_image, to_tensor
from .frame_stream import FrameStream
from .mappers import DATASET_MAPPER_REGISTRY, Rejected, Sample
from .transforms import (
    Transform,
    apply_to_image,
    apply_to_masks,
    apply_to_polygon,
    shortest_edge_size,
)

__all__ = ["ClipMapper", "PseudoClipMapper"]

_VIRTUAL_LENGTH = (16, 48)  # of the video that an image pretends to be
_NOTHING_VISIBLE = Rejected("no object is visible")


@DATASET_MAPPER_REGISTRY.register(name="video_instance")
class ClipMapper:
    """Makes training clips or whole test videos of records with instance masks.

    Args:
        augmentation: of training clips; ``None``: test mode, all frames and no instances.
        num_frames: frames of a training clip.
        reach: see ``sample_frames``.
        shuffle: see ``sample_frames``.
        reverse: see ``sample_frames``.
        test_size: shorter side in test mode, 0 keeps the size.
        max_test_size: bound of the longer side in test mode.
        category_map: class of the model by class of the record, -1 to leave the object out.

    Attributes:
        reads: see ``DATASET_MAPPER_REGISTRY``.
        num_classes_key: likewise.
    """

    reads = "frames"
    num_classes_key = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"

    def __init__(
        self,
        augmentation: ClipAugmentation | None,
        *,
        num_frames: int = 1,
        reach: int = 20,
        shuffle: bool = False,
        reverse: bool = False,
        test_size: int = 0,
        max_test_size: int = 1333,
        category_map: np.ndarray | None = None,
    ) -> None:
        self.augmentation = augmentation
        self.num_frames = num_frames
        self.reach = reach
        self.shuffle = shuffle
        self.reverse = reverse
        self.test_size = test_size
        self.max_test_size = max_test_size
        self.category_map = category_map

    @classmethod
    def from_config(
        cls, cfg: Any, *, is_train: bool, category_map: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Gives the arguments of ``__init__``."""
        return {
            "augmentation": cls._augmentation(cfg) if is_train else None,
            "num_frames": cfg.INPUT.SAMPLING_FRAME_NUM,
            "reach": cfg.INPUT.SAMPLING_FRAME_RANGE,
            "shuffle": cfg.INPUT.SAMPLING_FRAME_SHUFFLE,
            "reverse": cfg.INPUT.REVERSE_AGU,
            "test_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_test_size": cfg.INPUT.MAX_SIZE_TEST,
            "category_map": category_map,
        }

    @classmethod
    def _augmentation(cls, cfg: Any) -> ClipAugmentation:
        return ClipAugmentation(**ClipAugmentation.from_config(cfg))

    def select(self, records: Records, name: str, *, drop_empty: bool) -> list[Record]:
        """Gives the records to train on.

        Args:
            records: of the data set.
            name: of the data set, for messages.
            drop_empty: whether to leave out those without an object.

        Raises:
            DataError: if there is no object at all.
        """
        if not records.annotated:
            raise DataError(
                f"{name} has no annotations: it is a test split and cannot be trained on"
            )
        kept = [r for r in records if not drop_empty or self._has_object(r)]
        if not any(map(self._has_object, kept)):
            raise DataError(f"{name}: none of the {len(records)} videos has an object to train on")
        return kept

    @staticmethod
    def sample_bytes(record: Record) -> int:
        """Gives the size of a whole test video in memory."""
        return int(record["length"] * record["height"] * record["width"] * 3)

    def _has_object(self, record: Record) -> bool:
        return any(
            not item["iscrowd"] and self._label(item) >= 0
            for frame in record["annotations"]
            for item in frame
        )

    def __call__(self, record: Record, rng: np.random.Generator) -> Sample | Rejected:
        """Makes a sample.

        Args:
            record: see ``catalog.Record``; not modified.
            rng: source of all draws; unused in test mode.

        Returns:
            ``frames`` uint8 ``(T, 3, H, W)`` RGB, ``height`` and ``width`` of the original,
            ``video_id``, ``frame_indices``, ``length``, ``file_names`` (of these frames) and, in
            training, ``instances``. ``Rejected`` if no object is visible in the training clip.

        Raises:
            DataError: if a frame or a mask cannot be read or has another size than stated.
        """
        if self.augmentation is None:
            return self._test_sample(record)
        indices = sample_frames(
            record["length"],
            self.num_frames,
            self.reach,
            rng,
            shuffle=self.shuffle,
            reverse=self.reverse,
        )
        return self._train_sample(record, indices, rng, self.augmentation)

    def stream(self, record: Record, pool: Executor | None, ahead: int) -> Sample:
        """Makes the sample of a test video whose ``frames`` are a ``FrameStream``.

        Args:
            record: see ``catalog.Record``.
            pool: threads that decode; see ``FrameStream``.
            ahead: how many frames in advance.
        """
        size = self._test_size(record)
        indices = list(range(record["length"]))
        shape = (len(indices), 3, *size)

        def read(index: int) -> Tensor:
            return load_frames(record, [index], size=size)[0]

        return _sample(record, indices, FrameStream(read, shape, pool=pool, ahead=ahead))

    def _test_sample(self, record: Record) -> Sample:
        indices = list(range(record["length"]))
        return _sample(record, indices, load_frames(record, indices, size=self._test_size(record)))

    def _test_size(self, record: Record) -> tuple[int, int]:
        return shortest_edge_size(
            record["height"], record["width"], self.test_size, self.max_test_size
        )

    def _train_sample(
        self,
        record: Record,
        indices: list[int],
        rng: np.random.Generator,
        augmentation: ClipAugmentation,
    ) -> Sample | Rejected:
        rows, labels = self._rows(record, indices)
        if not rows:
            return _NOTHING_VISIBLE
        size = (record["height"], record["width"])
        plan = augmentation.draw(rng, size, len(indices))
        # A short video repeats frames: each is read once.
        images = {i: apply_to_image(plan.shared, read_image(record, i)) for i in set(indices)}
        masks = {i: _frame_masks(record, i, rows, plan.shared, plan.size) for i in set(indices)}
        frames, clip_masks = [], []
        for place, index in enumerate(indices):
            rotation = plan.rotations[place : place + 1]
            frames.append(apply_to_image(rotation, images[index]))
            clip_masks.append(apply_to_masks(rotation, masks[index]))
        instances = _instances(np.stack(clip_masks, axis=1), labels)
        if not len(instances):
            return _NOTHING_VISIBLE
        sample = _sample(record, indices, to_tensor(frames))
        sample["instances"] = instances
        return sample

    def _rows(self, record: Record, indices: Sequence[int]) -> tuple[dict[Any, int], list[int]]:
        """Gives the row of every object that is in one of the frames, by id, and the labels."""
        found: dict[Any, int] = {}
        for index in indices:
            for item in record["annotations"][index]:
                label = self._label(item)
                if label >= 0 and not item["iscrowd"]:
                    found[item["id"]] = label
        ids = sorted(found)
        return {key: row for row, key in enumerate(ids)}, [found[key] for key in ids]

    def _label(self, item: dict[str, Any]) -> int:
        label = item["category_id"]
        return label if self.category_map is None else int(self.category_map[label])


@DATASET_MAPPER_REGISTRY.register(name="image_instance")
class PseudoClipMapper(ClipMapper):
    """Makes training clips of single images: the same image, rotated a little from frame to frame.

    Takes the arguments of ``ClipMapper``. A record with several frames gives one of them at random.
    Polygons are moved first and filled then, which keeps their outlines sharp.
    """

    @classmethod
    def _augmentation(cls, cfg: Any) -> ClipAugmentation:
        return ClipAugmentation(**ClipAugmentation.from_config(cfg, pseudo=True))

    def _train_sample(
        self,
        record: Record,
        indices: list[int],
        rng: np.random.Generator,
        augmentation: ClipAugmentation,
    ) -> Sample | Rejected:
        index = int(rng.integers(record["length"]))
        rows, labels = self._rows(record, [index])
        if not rows:
            return _NOTHING_VISIBLE
        length = int(rng.integers(_VIRTUAL_LENGTH[0], _VIRTUAL_LENGTH[1] + 1))
        positions = sample_frames(
            length, self.num_frames, self.reach, rng, shuffle=self.shuffle, reverse=self.reverse
        )
        size = (record["height"], record["width"])
        plan = augmentation.draw(rng, size, len(positions))
        image = apply_to_image(plan.shared, read_image(record, index))
        masks = _pseudo_masks(record, index, rows, plan, len(positions))
        instances = _instances(masks, labels)
        if not len(instances):
            return _NOTHING_VISIBLE
        frames = [image] * len(positions)
        if plan.rotations:
            frames = [rotation.image(image) for rotation in plan.rotations]
        sample = _sample(record, [index] * len(positions), to_tensor(frames))
        sample.update(frame_indices=positions, length=length, instances=instances)
        return sample


def _segmentations(
    record: Record, index: int, rows: dict[Any, int]
) -> list[tuple[int, dict[str, Any]]]:
    """Gives (row, object) of the objects with a row that are annotated in a frame."""
    items = record["annotations"][index]
    return [(rows[item["id"]], item) for item in items if item["id"] in rows]


def _to_rle(record: Record, index: int, item: dict[str, Any], size: tuple[int, int]) -> rle.RLE:
    where = f"{record.get('json_file', 'data set')}: annotation {item['id']}, frame {index}"
    try:
        encoded = rle.from_segmentation(item["segmentation"], *size)
    except ValueError as error:
        raise DataError(f"{where}: segmentation: {error}") from None
    if encoded is None or tuple(encoded["size"]) != size:
        found = None if encoded is None else tuple(encoded["size"])
        raise DataError(f"{where}: the mask has size {found}, the frame {size}")
    return encoded


def _frame_masks(
    record: Record,
    index: int,
    rows: dict[Any, int],
    transforms: Sequence[Transform],
    size: tuple[int, int],
) -> np.ndarray:
    """Gives the masks of all rows in one frame after the transforms, bool ``(N, H, W)``."""
    source = (record["height"], record["width"])
    result = np.zeros((len(rows), *size), dtype=bool)
    items = _segmentations(record, index, rows)
    if items:
        masks = rle.decode([_to_rle(record, index, item, source) for _, item in items])
        result[[row for row, _ in items]] = apply_to_masks(transforms, masks)
    return result


def _pseudo_masks(
    record: Record, index: int, rows: dict[Any, int], plan: ClipPlan, num_frames: int
) -> np.ndarray:
    """Gives the masks of a pseudo clip, bool ``(N, T, H, W)``."""
    source = (record["height"], record["width"])
    chains = [[rotation] for rotation in plan.rotations] or [[]]
    result = np.zeros((len(rows), len(chains), *plan.size), dtype=bool)
    for row, item in _segmentations(record, index, rows):
        segmentation = item["segmentation"]
        if isinstance(segmentation, list):
            polygons = [apply_to_polygon(plan.shared, polygon) for polygon in segmentation]
            for place, chain in enumerate(chains):
                moved = [apply_to_polygon(chain, polygon) for polygon in polygons]
                result[row, place] = rle.decode(rle.from_polygons(moved, *plan.size))
        else:
            mask = rle.decode([_to_rle(record, index, item, source)])
            mask = apply_to_masks(plan.shared, mask)
            for place, chain in enumerate(chains):
                result[row, place] = apply_to_masks(chain, mask)[0]
    return result if plan.rotations else np.repeat(result, num_frames, axis=1)


def _instances(masks: np.ndarray, labels: Sequence[int]) -> ClipInstances:
    """Builds the instances and leaves out those that no frame shows any more."""
    present = np.any(masks, axis=(2, 3))  # (N, T)
    kept = np.any(present, axis=1)
    if not kept.all():
        masks, present = masks[kept], present[kept]
    numbers = np.asarray(labels, dtype=np.int64)[kept]
    return ClipInstances(
        torch.from_numpy(np.ascontiguousarray(masks)),
        torch.from_numpy(numbers),
        torch.from_numpy(present),
    )


def _sample(record: Record, indices: Sequence[int], frames: Tensor | FrameStream) -> Sample:
    return {
        "frames": frames,
        "height": record["height"],
        "width": record["width"],
        "video_id": record["video_id"],
        "frame_indices": list(indices),
        "length": record["length"],
        "file_names": [record["file_names"][index] for index in indices],
    }
