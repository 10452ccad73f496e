"""One video on its way through tracker and refiner; the result comes at the end.

Shapes: n instances of the result, t frames of a window, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidseg.modeling.meta_arch import ResultPlace, SequenceBuffer
from vidseg.rle import RLE
from vidseg.structures import VideoInstances

from .keepings import ClipKeepings, ClipSequences
from .long_refining import classify_in_parts, refine_in_place
from .refiner import TemporalRefiner
from .results import MaskQuality, Selection
from .sequences import best_tracks
from .sessions import TrackingParts, TrackingState
from .settings import RefinerInput

__all__ = ["OfflineSession"]

_NOTHING_REFINED = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.bool)


class OfflineSession:
    """Tracks as the online session, then refines the best tracks over the whole clip.

    What is kept per frame is :class:`~.keepings.ClipKeepings`: up to ``memory_mb`` in memory, the
    rest in a temporary file. Masks of tracks are never made, masks of instances only of those that
    are part of the result, a few frames at a time.

    What grows in memory with the frames, beyond the bound: the RLE masks of the result, which
    instance exists where (a byte per instance and frame), and one instance over all frames while
    the refiner works on it (about 50 C bytes per frame).

    Args:
        parts: of the model.
        refiner: the network.
        refiner_input: which instances it sees.
        place: of the result in the video.
        memory_mb: bound of the keepings in MiB.

    Note:
        A video with exactly one instance has a result; the published code returns none.
    """

    is_offline = True

    def __init__(
        self,
        parts: TrackingParts,
        refiner: TemporalRefiner,
        refiner_input: RefinerInput,
        place: ResultPlace,
        *,
        memory_mb: float = 64,
    ) -> None:
        self._state = TrackingState(parts, place)
        self._refiner = refiner
        self._input = refiner_input
        self._memory_mb = memory_mb
        self._kept = self._new_keepings()
        self.observers = self._state.observers
        self.fills = refiner_input.fill
        self.refined = _NOTHING_REFINED  # ids (N,) and padding (N, T), known after ``finish``

    @torch.no_grad()
    def step(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames, uint8 ``(t, 3, H, W)``; the result comes with the video's.

        Raises:
            DataError: if the frames' size differs from before.
            ResourceError: if the temporary disk is full.
        """
        start = self._state.num_frames
        window = self._state.track(frames, lambda _, tracked: self._kept.add_tracks(tracked))
        self._kept.add_window(window)
        # An ended track that enough others beat can never enter the refiner.
        self._state.ended = best_tracks(self._state.ended, self._input.max_tracks)
        return self._state.nothing(range(start, self._state.num_frames))

    @torch.no_grad()
    def finish(self) -> VideoInstances:
        """Gives the refined instances of all frames of this clip."""
        clip = self._state.clip
        instances = self.instances()
        self.refined = instances.ids, instances.padding
        if len(instances) == 0:
            return self._state.nothing(clip)
        queries, padding = instances.queries, instances.padding
        refine_in_place(self._refiner, queries, self._kept.embeds, padding)
        logits = classify_in_parts(self._refiner, queries, padding)
        settings = self._state.parts.settings
        selection = Selection.best(logits, settings)
        wanted = selection.rows.unique()
        masks, quality = self._masks(queries, wanted)
        if settings.mask_quality:
            place = torch.searchsorted(wanted, selection.rows)
            selection = selection.rated(quality.of(place.tolist()))
        place = torch.searchsorted(wanted, selection.rows)
        chosen = [masks[row] for row in place.tolist()]
        queries.release()
        return self._state.result(selection, instances.ids[selection.rows], chosen, clip)

    def next_clip(self, indices: Sequence[int] | None = None) -> None:
        """Starts the next clip of the video: live tracks go on, what was kept is dropped.

        A result then covers the frames of the new clip alone; tracks that were born before are
        refined from its first frame on.

        Args:
            indices: positions of the clip's frames in the video; they count on by default.
        """
        self._state.next_clip(indices)
        if self._input.fill:
            self._state.reserve_ids(self._kept.num_queries)
        self._kept = self._new_keepings()

    def instances(self) -> ClipSequences:
        """Gives what enters the refiner: the best tracks, filled up with linked frame queries.

        Linked queries have ids after those of all tracks.
        """
        tracks = best_tracks(self._state.tracks(), self._input.max_tracks)
        return self._kept.sequences(tracks, self._input, self._state.memory.next_id)

    def _new_keepings(self) -> ClipKeepings:
        return ClipKeepings(self._memory_mb, link=self._input.fill)

    def _masks(
        self, queries: SequenceBuffer, wanted: Tensor
    ) -> tuple[list[list[RLE | None]], MaskQuality]:
        """Makes the masks of some refined sequences, a few frames at a time."""
        assert self._state.geometry is not None
        parts = self._state.parts
        masks: list[list[RLE | None]] = [[] for _ in wanted]
        quality = MaskQuality()
        num_frames = queries.shape[1]
        for start in range(0, num_frames, parts.window_size):
            stop = min(start + parts.window_size, num_frames)
            part = queries.frames(start, stop).transpose(0, 1)[wanted]  # (n, t, C)
            features = self._kept.features.stacked(range(start, stop))
            logits = self._refiner.segment(part[None], features[None])[0]  # (n, t, h, w)
            for row, runs in zip(masks, self._state.geometry.encode(logits), strict=True):
                row.extend(runs)
            if parts.settings.mask_quality:
                quality.add(range(len(masks)), logits)
        return masks, quality
