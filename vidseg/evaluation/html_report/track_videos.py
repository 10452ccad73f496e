"""The tracks of a data set by video, compared with each other and made ready for the player."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from vidseg.evaluation.ytvis import ALL_CLASSES
from vidseg.evaluation.ytvis_files import GroundTruth, Track, load_ground_truth, load_results

from .analysis import Confusions, confusions, overlaps
from .frames import FrameReader
from .masks import shrunk_masks, shrunk_size
from .payload import MAX_SIDE, Limits, Payload, number, track, videos

__all__ = ["TrackVideos"]


class TrackVideos:
    """The tracks of a data set by video.

    Args:
        truth: what the ground truth file says.
        found: all predictions.
        class_agnostic: whether tracks of different classes are compared.
        min_score: predictions with a lower score are counted and left out.

    Attributes:
        by_video: annotated tracks and predictions, the surest first, by ascending video id.
        names: of the videos, by id.
        num_found: predictions.
        num_weak: predictions that are left out.
        num_truth_of_class: annotated tracks but for crowds, by category id.
        num_found_of_class: predictions by category id.
    """

    def __init__(
        self,
        truth: GroundTruth,
        found: Sequence[Track],
        *,
        class_agnostic: bool,
        min_score: float,
    ) -> None:
        self.truth = truth
        self.is_class_agnostic = class_agnostic
        self._places = {key: place for place, key in enumerate(truth.category_ids)}
        shown = [one for one in found if one.score >= min_score]
        self.num_found, self.num_weak = len(found), len(found) - len(shown)
        known = [one for one in truth.tracks if one.category_id in self._places]
        self.num_truth_of_class = Counter(one.category_id for one in known if not one.is_crowd)
        self.num_found_of_class = Counter(one.category_id for one in found)
        sides: dict[Any, tuple[list[Track], list[Track]]] = defaultdict(lambda: ([], []))
        for one in known:
            sides[one.video_id][0].append(one)
        for one in sorted(shown, key=lambda one: -one.score):
            sides[one.video_id][1].append(one)
        self.by_video = {video_id: sides[video_id] for video_id in truth.video_ids}
        self.names = {key: _name(key, video) for key, video in truth.videos.items()}
        self._confusions: dict[Any, Confusions] = {}

    @classmethod
    def load(
        cls,
        gt: str | os.PathLike[str] | Mapping[str, Any],
        results: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
        *,
        class_agnostic: bool,
        min_score: float,
    ) -> TrackVideos:
        """Reads files, or their loaded content.

        Raises:
            DataError: if one is missing or broken.
        """
        truth = load_ground_truth(gt)
        found = load_results(results, truth)
        return cls(truth, found, class_agnostic=class_agnostic, min_score=min_score)

    def forget_crowds(self) -> None:
        """Takes crowds for annotations like others."""
        for one in self.truth.tracks:
            one.is_crowd = False

    def counts(self, video_id: Any) -> dict[str, int]:
        """Gives the confusions of a video, and how many annotations and predictions it has."""
        truth, found = self.by_video[video_id]
        number_of = {"tracks": len(truth), "predictions": len(found)}
        return self.confusions(video_id).counts() | number_of

    def confusions(self, video_id: Any) -> Confusions:
        """Compares the tracks of a video."""
        if video_id not in self._confusions:
            truth, found = self.by_video[video_id]
            length = self._length(video_id)
            self._confusions[video_id] = confusions(
                overlaps([one.masks for one in truth], [one.masks for one in found], length),
                truth_classes=list(map(self._class_of, truth)),
                found_classes=list(map(self._class_of, found)),
                is_crowd=[one.is_crowd for one in truth],
            )
        return self._confusions[video_id]

    def show(self, payload: Payload, images: str | os.PathLike[str] | None, limits: Limits) -> None:
        """Adds the worst videos of its ranking to a payload.

        Args:
            payload: of the report.
            images: folder that the names of frames are relative to.
            limits: how many.
        """
        payload["classNames"] = [self.truth.category_names[key] for key in self._places]
        frames = FrameReader(images)
        ids = {str(key): key for key in self.by_video}
        videos(payload, lambda key: self._video(ids[key], frames, limits), limits)
        payload["notes"] += frames.finish()

    def _video(self, video_id: Any, frames: FrameReader, limits: Limits) -> Payload:
        truth, found = self.by_video[video_id]
        length, states = self._length(video_id), self.confusions(video_id)
        width, height = self._size(video_id)
        shown = limits.frames_of(length)
        files = self.truth.videos[video_id].get("file_names")
        names = dict(enumerate(files)) if isinstance(files, list) else {}

        def told(one: Track, letters: Sequence[str], **more: Any) -> Payload:
            masks = [one.masks[frame] if frame < len(one.masks) else None for frame in shown]
            return track(
                id=one.id,
                class_index=self._places[one.category_id],
                label=self.truth.category_names[one.category_id],
                masks=shrunk_masks(masks, width, height, name=f"video {video_id!r}"),
                states=letters,
                **more,
            )

        return {
            "id": str(video_id),
            "name": self.names[video_id],
            "width": width,
            "height": height,
            "length": length,
            "frames": [
                {"index": frame, "image": frames.read(names.get(frame), width, height)}
                for frame in shown
            ],
            "truth": [
                told(one, letters, crowd=one.is_crowd)
                for one, letters in zip(truth, states.truth, strict=True)
            ],
            "predictions": [
                told(one, letters, score=number(one.score), partner=partner)
                for one, letters, partner in zip(found, states.found, states.partners, strict=True)
            ],
        }

    def _class_of(self, one: Track) -> Hashable:
        return ALL_CLASSES if self.is_class_agnostic else one.category_id

    def _length(self, video_id: Any) -> int:
        known = self.truth.video_lengths.get(video_id)
        if known is not None:
            return known
        return max((len(one.masks) for side in self.by_video[video_id] for one in side), default=0)

    def _size(self, video_id: Any) -> tuple[int, int]:
        """Gives width and height of the pictures of a video."""
        video = self.truth.videos[video_id]
        sizes = [
            mask["size"]
            for side in self.by_video[video_id]
            for one in side
            for mask in one.masks
            if mask is not None
        ]
        height, width = sizes[0] if sizes else (MAX_SIDE, MAX_SIDE)
        width, height = video.get("width") or width, video.get("height") or height
        return shrunk_size(width, height, MAX_SIDE)


def _name(video_id: Any, video: Mapping[str, Any]) -> str:
    """Gives the folder of a video's frames, which is how data sets call it, else its id."""
    files = video.get("file_names")
    if isinstance(files, list) and files and isinstance(files[0], str):
        folder = str(PurePath(files[0]).parent)
        return folder if folder != "." else str(video_id)
    return str(video_id)
