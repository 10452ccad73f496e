"""One video on its way through tracker and refiner; the result comes at the end.

Shapes: N instances, T frames, t frames of a window, Q frame queries, C channels, K classes,
h w the mask features' size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg.modeling.meta_arch import ResultPlace
from vidseg.rle import RLE
from vidseg.structures import VideoInstances

from .refiner import TemporalRefiner
from .results import MaskQuality, Selection
from .sequences import InstanceSequences, best_tracks, gather_sequences, linked_sequences
from .sessions import TrackingParts, TrackingState
from .settings import RefinerInput

__all__ = ["OfflineSession"]


class OfflineSession:
    """Tracks as the online session, then refines the best tracks over the whole video.

    What is kept per frame: embeddings of frame queries and tracks, and the mask features. Masks
    of tracks are never made, masks of instances only of those that are part of the result.

    Args:
        parts: of the model.
        refiner: the network.
        refiner_input: which instances it sees.
        place: of the result in the video.

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
    ) -> None:
        self._state = TrackingState(parts, place)
        self._refiner = refiner
        self._input = refiner_input
        self._rows: list[tuple[Tensor, Tensor]] = []  # per frame ids (M,), embeddings (M, C)
        self._embeds: list[Tensor] = []  # per window (t, Q, C)
        self._logits: list[Tensor] = []  # per window (t, Q, K+1)
        self._features: list[Tensor] = []  # per window (t, C, h, w)

    @torch.no_grad()
    def step(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames, uint8 ``(t, 3, H, W)``; the result comes with the video's."""
        start = self._state.num_frames
        window = self._state.track(frames, lambda _, f: self._rows.append((f.ids, f.embeds)))
        self._embeds.append(window.embeds)
        self._logits.append(window.logits)
        self._features.append(window.mask_features)
        # An ended track that enough others beat can never enter the refiner.
        self._state.ended = best_tracks(self._state.ended, self._input.max_tracks)
        return self._state.nothing(range(start, self._state.num_frames))

    @torch.no_grad()
    def finish(self) -> VideoInstances:
        """Gives the refined instances of all frames seen so far."""
        video = range(self._state.num_frames)
        instances = self.instances()
        if len(instances) == 0:
            return self._state.nothing(video)
        padding = instances.padding[None]
        frame_embeds = torch.cat(self._embeds)[None]  # (1, T, Q, C)
        queries = self._refiner(instances.embeds[None], frame_embeds, padding)[-1]  # (1, N, T, C)
        settings = self._state.parts.settings
        selection = Selection.best(self._refiner.classify(queries, padding)[0], settings)
        wanted = selection.rows.unique()
        masks, quality = self._masks(queries[0, wanted])
        if settings.mask_quality:
            place = torch.searchsorted(wanted, selection.rows)
            selection = selection.rated(quality.of(place.tolist()))
        place = torch.searchsorted(wanted, selection.rows)
        chosen = [masks[row] for row in place.tolist()]
        return self._state.result(selection, instances.ids[selection.rows], chosen, video)

    def instances(self) -> InstanceSequences:
        """Gives what enters the refiner: the best tracks, filled up with linked frame queries.

        Linked queries have ids after those of all tracks.
        """
        tracks = best_tracks(self._state.tracks(), self._input.max_tracks)
        instances = gather_sequences(tracks, self._rows)
        enough = len(instances) >= self._input.num_instances
        if not self._input.fill or enough or not self._embeds:
            return instances
        linked = linked_sequences(
            torch.cat(self._embeds),
            torch.cat(self._logits),
            first_id=self._state.memory.next_id,
        )
        return instances.filled(linked, self._input.num_instances)

    def _masks(self, queries: Tensor) -> tuple[list[list[RLE | None]], MaskQuality]:
        """Makes the masks of refined queries ``(n, T, C)``, a few frames at a time."""
        assert self._state.geometry is not None
        parts = self._state.parts
        masks: list[list[RLE | None]] = [[] for _ in queries]
        quality = MaskQuality()
        start = 0
        for window in self._features:
            for features in window.split(parts.window_size):
                part = queries[None, :, start : start + len(features)]
                logits = self._refiner.segment(part, features[None])[0]  # (n, t, h, w)
                for row, runs in zip(masks, self._state.geometry.encode(logits), strict=True):
                    row.extend(runs)
                if parts.settings.mask_quality:
                    quality.add(range(len(masks)), logits)
                start += len(features)
        return masks, quality
