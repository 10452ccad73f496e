"""One video on its way through the tracker: state between windows, result at the end.

Shapes: t frames of a window, Q frame queries, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vidseg.errors import DataError
from vidseg.modeling.meta_arch import ResultPlace, ResultSettings
from vidseg.modeling.transformer_decoder import DecoderOutput
from vidseg.rle import RLE
from vidseg.structures import VideoInstances

from .inference import FrameTracks, track_window, without_noise
from .memory import EndedTracks, TrackMemory, TrackRules
from .results import FrameGeometry, MaskHistory, MaskQuality, Selection
from .tracker import VideoInstanceCutter

__all__ = ["OnlineSession", "TrackingParts", "TrackingState"]

Size = tuple[int, int]


@dataclass(frozen=True)
class TrackingParts:
    """What a session needs of the model; it holds no state of any video.

    Attributes:
        segment: maps frames uint8 ``(t, 3, H, W)`` to a ``DecoderOutput``.
        tracker: the network.
        query_table: query features of the frame decoder, ``(Q, C)``.
        rules: of births, visibility and ends.
        settings: what the result holds.
        window_size: frames whose masks are computed at once.
    """

    segment: Callable[[Tensor], DecoderOutput]
    tracker: VideoInstanceCutter
    query_table: Tensor
    rules: TrackRules
    settings: ResultSettings
    window_size: int


class TrackingState:
    """The part that online and offline sessions share: memory, ended tracks, sizes.

    Args:
        parts: of the model.
        place: of the result in the video.
    """

    def __init__(self, parts: TrackingParts, place: ResultPlace) -> None:
        weight = parts.tracker.class_embed.weight  # (K+1, C)
        self.parts = parts
        self.memory = TrackMemory.empty(weight.shape[1], weight.shape[0], weight.device)
        self.ended = self.memory.as_ended()
        self.geometry: FrameGeometry | None = None
        self.observers: list[Callable[[FrameTracks], object]] = []  # told of every frame
        self._place = place

    @property
    def num_frames(self) -> int:
        """Frames seen so far, in all clips."""
        return self.memory.num_frames

    @property
    def clip(self) -> range:
        """Frames of this clip, counted over all clips."""
        return self._place.clip(self.num_frames)

    def next_clip(self, indices: Sequence[int] | None) -> None:
        """Starts the next clip: live tracks go on, ended ones are part of no further result.

        Args:
            indices: positions of the clip's frames in the video; they count on by default.
        """
        self._place = self._place.next_clip(self.num_frames, indices)
        self.ended = self.ended.rows(self.ended.ids[:0])

    def reserve_ids(self, count: int) -> None:
        """Leaves out the next ids, which a result gave to something else than a track."""
        self.memory = replace(self.memory, next_id=self.memory.next_id + count)

    def track(self, frames: Tensor, keep: Callable[[int, FrameTracks], None]) -> DecoderOutput:
        """Segments a window, uint8 ``(t, 3, H, W)``, and tracks through it.

        Args:
            frames: the next frames.
            keep: called with every frame's number and tracks.

        Returns:
            The segmenter's output for the window.

        Raises:
            DataError: if the frames differ in size from those before.
        """
        parts = self.parts
        self._check_size(frames)
        window = parts.segment(frames)
        self.geometry = FrameGeometry.of(frames, window.mask_features, self._place.size)
        steps = track_window(parts.tracker, window, self.memory, parts.rules, parts.query_table)
        for memory, tracked in steps:
            if len(tracked.ended):
                ended = self._of_this_clip(without_noise(tracked.ended, parts.rules))
                self.ended = self.ended.joined(ended)
            keep(self.num_frames, tracked)
            for observe in self.observers:
                observe(tracked)
            self.memory = memory
            del memory, tracked  # before the next frame is computed
        return window

    def tracks(self) -> EndedTracks:
        """Gives all tracks that are no noise as if the clip ended here, in order of birth."""
        return self.ended.joined(self._of_this_clip(self.memory.as_ended()))

    def result(
        self, selection: Selection, ids: Tensor, masks: list[list[RLE | None]], frames: range
    ) -> VideoInstances:
        """Packs what was selected; ``ids`` and ``masks`` are those of the selected pairs."""
        size, indices = self._size_and_indices(frames)
        return VideoInstances(
            scores=selection.scores.cpu(),
            labels=selection.labels.cpu(),
            track_ids=ids.cpu(),
            masks=masks,
            image_size=size,
            frame_indices=indices,
        )

    def nothing(self, frames: range) -> VideoInstances:
        """Gives a result without instances."""
        return VideoInstances.empty(*self._size_and_indices(frames))

    def _of_this_clip(self, tracks: EndedTracks) -> EndedTracks:
        return tracks.rows(tracks.starts + tracks.lengths > self.clip.start)

    def _check_size(self, frames: Tensor) -> None:
        size = (frames.shape[-2], frames.shape[-1])
        if self.geometry is not None and self.geometry.image != size:
            raise DataError(
                f"frames of one video differ in size: {self.geometry.image} and {size} (height,"
                " width); the tracks of one cannot go on in the other"
            )

    def _size_and_indices(self, frames: range) -> tuple[Size, list[int]]:
        image = None if self.geometry is None else self.geometry.image
        return self._place.size_for(image), self._place.indices_for(frames)


class OnlineSession:
    """Causal tracking: every window has a result of its own, and so has the whole clip.

    What is kept: the tracker's memory, which has a few rows per live track, and masks as RLE of
    the live tracks and of those ended tracks that can still be among the best of the clip. With
    ``stream`` no masks are kept, and nothing grows with the number of frames.

    Args:
        parts: of the model.
        place: of the result in the video.
    """

    def __init__(self, parts: TrackingParts, place: ResultPlace) -> None:
        self._state = TrackingState(parts, place)
        self._history = MaskHistory()
        self._quality = MaskQuality()
        self.observers = self._state.observers

    def step(self, frames: Tensor) -> VideoInstances:
        """Tracks through the next frames, uint8 ``(t, 3, H, W)``.

        Returns:
            The tracks of this window with their ids and their scores so far.
        """
        start = self._state.num_frames
        self.feed(frames)
        tracks = self._state.tracks()
        seen = tracks.rows(tracks.starts + tracks.lengths > start)
        return self._result(seen, range(start, self._state.num_frames))

    def stream(self, frames: Tensor) -> VideoInstances:
        """Tracks as ``step`` does and forgets the masks; ``finish`` would give tracks without."""
        window = self.step(frames)
        self._history = MaskHistory()
        return window

    @torch.no_grad()
    def feed(self, frames: Tensor) -> None:
        """Tracks through the next frames without reporting on them.

        Raises:
            DataError: if their size differs from that of the frames before.
        """
        self._state.track(frames, self._remember)
        self._forget_hopeless()

    def finish(self) -> VideoInstances:
        """Gives the best tracks of this clip's frames so far; the session may go on after that."""
        return self._result(self._state.tracks(), self._state.clip)

    def next_clip(self, indices: Sequence[int] | None = None) -> None:
        """Starts the next clip of the video: live tracks go on, with their ids and scores.

        Args:
            indices: positions of the clip's frames in the video; they count on by default.
        """
        self._state.next_clip(indices)
        self._history = MaskHistory()
        self._forget_hopeless()

    def _remember(self, frame: int, tracked: FrameTracks) -> None:
        assert self._state.geometry is not None
        ids = tracked.ids.tolist()
        masks = self._state.geometry.encode(tracked.masks[:, None])
        self._history.add(ids, frame, [runs[0] for runs in masks])
        if self._state.parts.settings.mask_quality:
            self._quality.add(ids, tracked.masks)

    def _result(self, tracks: EndedTracks, frames: range) -> VideoInstances:
        settings = self._state.parts.settings
        selection = Selection.best(tracks.logits, settings)
        if settings.mask_quality:
            ids = tracks.ids[selection.rows].tolist()
            selection = selection.rated(self._quality.of(ids))
        chosen = tracks.ids[selection.rows]
        masks = [self._history.masks(track, frames) for track in chosen.tolist()]
        return self._state.result(selection, chosen, masks, frames)

    def _forget_hopeless(self) -> None:
        """Drops ended tracks that enough others beat for good: their scores change no more."""
        ended = self._state.ended
        best = Selection.best(ended.logits, self._state.parts.settings)
        self._state.ended = ended.rows(best.rows.unique())  # sorted: in order of birth
        alive = {*self._state.ended.ids.tolist(), *self._state.memory.ids.tolist()}
        self._history.keep_only(alive)
        self._quality.keep_only(alive)
