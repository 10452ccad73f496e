"""Records of clips to tokens: generated or read, detected, labelled and, in training, augmented.

Shapes: T frames, N detections, P side of a patch, M objects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.data import ClipMapper, Record, Records
from vidseg.data.mappers import DATASET_MAPPER_REGISTRY, Rejected, Sample
from vidseg.errors import ConfigError, DataError

from .augmentation import TokenAugmentation, TokenClip
from .clips import Clip, PersistenceClips
from .detection_cache import CachedClip, DetectionCache, cache_key
from .detections import Detections
from .detector import BlobDetector
from .ground_truth import match_detections, noisy_labels
from .patches import extract_patches
from .scene import MAX_TRANSIENT
from .trackers import HungarianTracker

__all__ = ["ObjectTokenMapper"]

_FIELDS = ("frame", "y", "x", "sigma", "response", "brightness", "circularity", "confidence")


@DATASET_MAPPER_REGISTRY.register(name="object_tokens")
class ObjectTokenMapper:
    """Makes samples of tokens.

    Records that name a generated clip (see ``data_sets``) are labelled. Those of an ordinary video
    data set can be evaluated: their frames are read, and no token has a label.

    Args:
        detector: finds the blobs.
        tracker: links them.
        patch_side: see ``extract_patches``.
        scaled_patches: likewise.
        video_mapper: reads the frames of an ordinary video, in test mode.
        augmentation: of training clips; without it the mapper is in test mode.
        min_transient: least number of transient objects of a generated clip.
        label_noise: share of the objects of training clips with the wrong label.
        tracker_settings: what the tracks depend on, for the cache.
        cache: whether to keep the detections of generated clips on disk.

    Raises:
        ConfigError: if a number is out of its range.
    """

    reads = "frames"
    num_classes_key = ""

    def __init__(
        self,
        *,
        detector: BlobDetector,
        tracker: HungarianTracker,
        patch_side: int,
        scaled_patches: bool,
        video_mapper: ClipMapper,
        augmentation: TokenAugmentation | None = None,
        min_transient: int = 0,
        label_noise: float = 0.0,
        tracker_settings: dict[str, Any] | None = None,
        cache: bool = True,
    ) -> None:
        if patch_side < 1:
            raise ConfigError(f"MODEL.PERSISTENCE.PATCH is {patch_side}; give a side in pixels")
        if not 0 <= label_noise <= 1:
            raise ConfigError(
                f"INPUT.PERSISTENCE.LABEL_NOISE is {label_noise}; give a share in [0, 1]"
            )
        if not 0 <= min_transient <= MAX_TRANSIENT:
            raise ConfigError(
                f"INPUT.PERSISTENCE.MIN_TRANSIENT is {min_transient}; give 0 to {MAX_TRANSIENT}"
            )
        self.detector = detector
        self.tracker = tracker
        self.patch_side = patch_side
        self.scaled_patches = scaled_patches
        self.video_mapper = video_mapper
        self.augmentation = augmentation
        self.min_transient = min_transient
        self.label_noise = label_noise
        self.tracker_settings = tracker_settings or {}
        self.cache = cache
        self._caches: dict[tuple[Any, ...], DetectionCache] = {}

    @classmethod
    def from_config(
        cls, cfg: Any, *, is_train: bool, category_map: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Gives the arguments of ``__init__``; no category could be mapped."""
        node, model = cfg.INPUT.PERSISTENCE, cfg.MODEL.PERSISTENCE
        tracker = HungarianTracker.from_config(cfg)
        augmentation = TokenAugmentation(**TokenAugmentation.from_config(cfg))
        return {
            "detector": BlobDetector.from_config(cfg),
            "tracker": HungarianTracker(**tracker),
            "tracker_settings": tracker,
            "patch_side": model.PATCH,
            "scaled_patches": model.PATCH_SCALE,
            "video_mapper": ClipMapper(**ClipMapper.from_config(cfg, is_train=False)),
            "augmentation": augmentation if is_train else None,
            "min_transient": node.MIN_TRANSIENT,
            "label_noise": node.LABEL_NOISE if is_train else 0.0,
            "cache": node.CACHE,
        }

    def select(self, records: Records, name: str, *, drop_empty: bool) -> list[Record]:
        """Gives the records to train on: all of them.

        Raises:
            DataError: if they are of an ordinary video data set, whose labels are others.
        """
        if any("variant" not in record for record in records):
            raise DataError(
                f"{name} does not say which objects are persistent and cannot be trained on; use "
                "a generated data set, e.g. persistence_same_train"
            )
        return list(records)

    @staticmethod
    def sample_bytes(record: Record) -> int:
        """Gives the size of a test clip in memory."""
        return int(record["length"] * record["height"] * record["width"] * 3)

    def __call__(self, record: Record, rng: np.random.Generator) -> Sample | Rejected:
        """Makes a sample.

        Args:
            record: see ``catalog.Record`` and ``data_sets``; not modified.
            rng: source of all draws; unused in test mode.

        Returns:
            - ``video_id``, ``length`` T, ``frame_indices``, ``file_names``, ``height``, ``width``;
            - ``detections``, N of them, and their ``patches`` uint8 ``(N, 3, P, P)``;
            - ``labels`` int64 ``(N,)``: 1 persistent, 0 transient, -1 unknown;
            - ``object_ids`` int64 ``(N,)``, -1 for none, and ``durations`` float32 ``(N,)``, share
              of the frames that the object is visible in, -1 if unknown;
            - ``tracks`` int64 ``(N,)``, of the tracker;
            - ``objects``: ``labels`` int64 ``(M,)``, ``presence`` bool ``(M, T)`` and ``durations``
              float32 ``(M,)``;
            - ``num_visible``: how often an object is visible in a frame;
            - ``frames`` uint8 ``(T, 3, H, W)`` RGB, in test mode.

            ``Rejected`` in training, if there is no token with a label.

        Raises:
            DataError: if a frame cannot be read.
        """
        if "variant" not in record:
            return self._video(record)
        clips = PersistenceClips(
            record["variant"],
            record["split"],
            size=record["height"],
            num_frames=record["length"],
            min_transient=self.min_transient,
        )
        index = record["index"]
        if self.augmentation is None:
            clip = clips[index]
            known = self._cached(clips, index, clip)
            sample = self._sample(record, _tokens(known, clips), known.labels)
            sample["frames"] = clip.frames
            return sample
        known = self._cached(clips, index)
        labels = noisy_labels(known.labels, clips, index, self.label_noise)
        if not len(known.rows):
            return Rejected("no detections")
        tokens = self.augmentation(_tokens(known, clips), rng)
        if not (tokens.object_ids >= 0).any():
            return Rejected("no labelled token")
        return self._sample(record, tokens, labels)

    def _cached(self, clips: PersistenceClips, index: int, clip: Clip | None = None) -> CachedClip:
        def make() -> CachedClip:
            return self._detect(clips[index] if clip is None else clip)

        return self._cache_of(clips).get(index, make) if self.cache else make()

    def _cache_of(self, clips: PersistenceClips) -> DetectionCache:
        place = (clips.name, clips.split, clips.size, clips.num_frames)
        if place not in self._caches:
            key = cache_key(
                {
                    "clips": clips.settings(),
                    "detector": self.detector.settings(),
                    "tracker": self.tracker_settings,
                    "patches": [self.patch_side, self.scaled_patches],
                }
            )
            self._caches[place] = DetectionCache(key, clips.split)
        return self._caches[place]

    def _detect(self, clip: Clip) -> CachedClip:
        found = self.detector(clip.frames, "TCHW")
        columns = [getattr(found, name)[:, None].float() for name in _FIELDS]
        return CachedClip(
            rows=torch.cat([*columns, found.color], 1).numpy(),
            patches=self._patches(clip.frames, found).numpy(),
            object_ids=match_detections(found, clip),
            tracks=self.tracker.track(found).numpy(),
            labels=clip.objects.labels,
            visible=clip.objects.visible,
        )

    def _patches(self, frames: Tensor, found: Detections) -> Tensor:
        return extract_patches(frames, found, side=self.patch_side, scaled=self.scaled_patches)

    def _video(self, record: Record) -> Sample:
        """Makes the sample of an ordinary video, without labels."""
        read = self.video_mapper(record, np.random.default_rng(0))
        assert not isinstance(read, Rejected), "test samples are never rejected"
        frames = read["frames"]
        found = self.detector(frames, "TCHW")
        nobody = torch.full((len(found),), -1)
        tokens = TokenClip(
            found,
            self._patches(frames, found),
            nobody,
            self.tracker.track(found),
            torch.zeros(0, len(frames), dtype=torch.bool),
        )
        return {**read, **self._sample(record, tokens, np.zeros(0, dtype=np.int64))}

    def _sample(self, record: Record, tokens: TokenClip, labels: np.ndarray) -> Sample:
        # One more for objects that are none, which number -1 then gives.
        of_objects = torch.from_numpy(np.append(labels, -1))
        durations = tokens.presence.float().mean(1)
        return {
            "video_id": record["video_id"],
            "length": record["length"],
            "frame_indices": range(record["length"]),
            "file_names": list(record["file_names"]),
            "height": record["height"],
            "width": record["width"],
            "detections": tokens.detections,
            "patches": tokens.patches,
            "labels": of_objects[tokens.object_ids],
            "object_ids": tokens.object_ids,
            "durations": torch.cat([durations, torch.tensor([-1.0])])[tokens.object_ids],
            "tracks": tokens.tracks,
            "objects": {
                "labels": of_objects[:-1],
                "presence": tokens.presence,
                "durations": durations,
            },
            "num_visible": int(tokens.presence.sum()),
        }


def _tokens(known: CachedClip, clips: PersistenceClips) -> TokenClip:
    rows = torch.from_numpy(known.rows)
    columns = dict(zip(_FIELDS, rows[:, : len(_FIELDS)].unbind(1), strict=True))
    found = Detections(
        **{**columns, "frame": columns["frame"].long()},
        color=rows[:, len(_FIELDS) :],
        num_frames=clips.num_frames,
        size=(clips.size, clips.size),
    )
    return TokenClip(
        found,
        torch.from_numpy(known.patches),
        torch.from_numpy(known.object_ids),
        torch.from_numpy(known.tracks),
        torch.from_numpy(known.visible),
    )
