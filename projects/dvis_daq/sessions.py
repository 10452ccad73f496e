"""One video on its way through the tracker: state between windows, result at the end.

Shapes: t frames of a window, Q frame queries, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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
        self._place = place

    @property
    def num_frames(self) -> int:
        """Frames seen so far."""
        return self.memory.num_frames

    def track(self, frames: Tensor, keep: Callable[[int, FrameTracks], None]) -> DecoderOutput:
        """Segments a window, uint8 ``(t, 3, H, W)``, and tracks through it.

        Args:
            frames: the next frames.
            keep: called with every frame's number and tracks.

        Returns:
            The segmenter's output for the window.
        """
        parts = self.parts
        window = parts.segment(frames)
        self.geometry = FrameGeometry.of(frames, window.mask_features, self._place.size)
        steps = track_window(parts.tracker, window, self.memory, parts.rules, parts.query_table)
        for memory, tracked in steps:
            if len(tracked.ended):
                self.ended = self.ended.joined(without_noise(tracked.ended, parts.rules))
            keep(self.num_frames, tracked)
            self.memory = memory
        return window

    def tracks(self) -> EndedTracks:
        """Gives all tracks that are no noise as if the video ended here, in order of birth."""
        return self.ended.joined(self.memory.as_ended())

    def result(
        self, selection: Selection, ids: Tensor, masks: list[list[RLE | None]], frames: range
    ) -> VideoInstances:
        """Packs what was selected; ``ids`` and ``masks`` are those of the selected pairs."""
        size, indices = self._size_and_indices(frames)
        return VideoInstances(
            scores=selection.scores,
            labels=selection.labels,
            track_ids=ids,
            masks=masks,
            image_size=size,
            frame_indices=indices,
        )

    def nothing(self, frames: range) -> VideoInstances:
        """Gives a result without instances."""
        return VideoInstances.empty(*self._size_and_indices(frames))

    def _size_and_indices(self, frames: range) -> tuple[Size, list[int]]:
        image = None if self.geometry is None else self.geometry.image
        return self._place.size_for(image), self._place.indices_for(frames)


class OnlineSession:
    """Causal tracking: every window has a result of its own, and so has the whole video.

    What is kept: the tracker's memory, and masks as RLE of the live tracks and of those ended
    tracks that can still be among the best of the video.

    Args:
        parts: of the model.
        place: of the result in the video.
    """

    def __init__(self, parts: TrackingParts, place: ResultPlace) -> None:
        self._state = TrackingState(parts, place)
        self._history = MaskHistory()
        self._quality = MaskQuality()

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

    @torch.no_grad()
    def feed(self, frames: Tensor) -> None:
        """Tracks through the next frames without reporting on them."""
        self._state.track(frames, self._remember)
        self._forget_hopeless()

    def finish(self) -> VideoInstances:
        """Gives the best tracks of all frames seen so far; the session may go on after that."""
        return self._result(self._state.tracks(), range(self._state.num_frames))

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
        self._quality.forget(self._history.keep_only(alive))
