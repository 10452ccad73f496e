"""What DVIS-DAQ read to find a track: of the picture, of the frames, and by which queries.

In every frame a track reads the frame queries, and each frame query has read the picture. The one
that the track reads most stands for it: its attention in the last layer of the frame decoder is
shown. Most is meant over all layers of the tracker, since any of them may be the one that picks:
in the models trained here it is the first, whose choice has the track's mask in 99 of 100 frames,
while the last layer, on its own, spreads its reading and names the right query in 10 at most.

Shapes: P live tracks, M rows kept of a frame, N refined instances, T frames, t frames of a window,
Q frame queries, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from vidseg.layers.attention_weights import recorded_attention
from vidseg.modeling.meta_arch import SegmenterBase, query_attention
from vidseg.modeling.postprocess import link_step
from vidseg.modeling.transformer_decoder import DecoderOutput
from vidseg.structures import FrameAttention, QueryRows

from .inference import FrameTracks
from .refiner import TemporalRefiner
from .refining import OfflineSession
from .sessions import OnlineSession
from .tracker import VideoInstanceCutter

__all__ = ["RefiningRecorder", "TrackingRecorder"]

_NOT_READ = (-1, 0.0)


class TrackingRecorder:
    """Explains an online session; see ``vidseg.modeling.meta_arch.Recorder``.

    Keeps two numbers per frame and live track, and what became of the rows.

    Args:
        model: the segmenter.
        tracker: the network that the session runs.
        session: before its first frame.
    """

    attention_source = (
        "last layer of the frame decoder, mean over heads; attention of the frame query that the "
        "track reads most (mean over the tracker's layers)"
    )

    def __init__(
        self,
        model: SegmenterBase,
        tracker: VideoInstanceCutter,
        session: OnlineSession | OfflineSession,
    ) -> None:
        self._model = model
        self._layers: list[Any] = list(tracker.transformer_cross_attention_layers)
        self._read: list[Tensor] = []  # per layer (P+Q, Q), of the frame on its way
        self._choices: list[dict[int, tuple[int, float]]] = []  # per frame, by track id
        self._rows: list[QueryRows] = []
        session.observers.append(self._add)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Surrounds every call of the session."""
        with ExitStack() as stack:
            for layer in self._layers:
                hear = recorded_attention(layer, lambda weights: self._read.append(weights[0]))
                stack.enter_context(hear)
            yield

    def attention(
        self, frames: Tensor, start: int, track_ids: Sequence[int]
    ) -> list[FrameAttention]:
        """Tells where tracks were seen in a window; nowhere in frames outside their life."""
        numbers = range(start, start + len(frames))
        return query_attention(
            self._model, frames, [[self.choice(n, i) for i in track_ids] for n in numbers]
        )

    def choice(self, frame: int, track_id: int) -> tuple[int, float]:
        """Gives the frame query that a track read most and its share; -1 if it read nothing."""
        return self._choices[frame].get(track_id, _NOT_READ)

    def frame_weights(self, track_ids: Sequence[int]) -> None:
        """Gives nothing: the class of a track is the mean over its frames."""

    def rows(self) -> list[QueryRows]:
        """Gives what became of tracks and anchors, frame by frame."""
        return self._rows

    def _add(self, tracked: FrameTracks) -> None:
        ids = tracked.ids.tolist()
        if self._read:
            shares, queries = torch.stack(self._read).mean(dim=0)[tracked.rows].max(dim=-1)  # (M,)
            best = zip(queries.tolist(), shares.tolist(), strict=True)
            self._choices.append(dict(zip(ids, best, strict=True)))
        else:
            self._choices.append({})
        self._read.clear()
        self._rows.append(
            QueryRows(
                num_tracks=tracked.num_tracks,
                num_anchors=tracked.num_anchors,
                rows=tracked.rows.tolist(),
                ids=ids,
                visible=tracked.visible.tolist(),
                ended=tracked.ended.ids.tolist(),
            )
        )


class RefiningRecorder:
    """Explains an offline session; see ``vidseg.modeling.meta_arch.Recorder``.

    Where a track comes from is what the tracker says; the refiner moves it from there. An instance
    that was filled in is one linked query per frame. Keeps, beyond the tracker's numbers, 4 N bytes
    per frame, and 8 Q where instances are filled in.

    Args:
        model: the segmenter.
        tracker: the network that carries the session's tracks.
        refiner: the network that refines them.
        session: before its first frame.
    """

    attention_source = TrackingRecorder.attention_source

    def __init__(
        self,
        model: SegmenterBase,
        tracker: VideoInstanceCutter,
        refiner: TemporalRefiner,
        session: OfflineSession,
    ) -> None:
        self._model = model
        self._refiner = refiner
        self._session = session
        self._tracking = TrackingRecorder(model, tracker, session)
        self._links = _Links()
        self._activations: list[Tensor] = []  # of the frames refined at once, (T, N)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Surrounds every call of the session."""
        # What leaves the last layer, however many frames go through it at once.
        last: Any = self._refiner.transformer_ffn_layers[-1]
        hooks = [last.register_forward_hook(self._weigh)]
        if self._session.fills:
            hooks.append(self._model.sem_seg_head.register_forward_hook(self._links.add))
        try:
            with self._tracking.recording():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def attention(
        self, frames: Tensor, start: int, track_ids: Sequence[int]
    ) -> list[FrameAttention]:
        """Tells where tracks were seen in a window; nowhere in frames outside their life."""
        num_births = 1 + max((i for rows in self.rows() for i in rows.ids), default=-1)
        choices = [
            [
                self._tracking.choice(frame, track)
                if track < num_births
                else (int(self._links.orders[frame][track - num_births]), 1.0)
                for track in track_ids
            ]
            for frame in range(start, start + len(frames))
        ]
        return query_attention(self._model, frames, choices)

    def frame_weights(self, track_ids: Sequence[int]) -> Tensor:
        """Gives each frame's share in the class of tracks, ``(n, T)``."""
        ids, padding = self._session.refined
        places = {track: place for place, track in enumerate(ids.tolist())}
        chosen = [places[track] for track in track_ids]
        activation = torch.cat(self._activations).T[chosen]
        return self._refiner.share_out(activation, padding[chosen].to(activation.device)).cpu()

    def rows(self) -> list[QueryRows]:
        """Gives what became of tracks and anchors, frame by frame."""
        return self._tracking.rows()

    def _weigh(self, _: Any, args: tuple[Any, ...], queries: Tensor) -> None:
        with torch.no_grad():
            self._activations.append(self._refiner.activation(queries))


class _Links:
    """The queries of every frame in the order of the first one, as instances are filled in."""

    def __init__(self) -> None:
        self.orders: list[Tensor] = []  # (Q,) each
        self._last: Tensor | None = None  # (Q, C)

    def add(self, _: Any, args: tuple[Any, ...], out: DecoderOutput) -> None:
        """Hears of the next window that was segmented."""
        for embeds in out.embeds:
            if self._last is None:
                order = torch.arange(len(embeds), device=embeds.device)
            else:
                order = link_step(self._last, embeds)
            self._last = embeds[order]
            self.orders.append(order.cpu())
