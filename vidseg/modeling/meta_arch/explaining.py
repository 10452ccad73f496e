"""What models on the frame segmenter read: the attention of their frame queries over the picture.

Shapes: n tracks, t frames of a window, Q frame queries, h w cells of the last layer's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from vidseg.errors import UserError
from vidseg.modeling.transformer_decoder import MaskedTransformerDecoder, last_attention
from vidseg.structures import FrameAttention, QueryRows, VideoInstances

from .base import SegmenterBase
from .session import Recorder, VideoSession

__all__ = ["LinkingRecorder", "RecordedSession", "query_attention"]


@torch.no_grad()
def query_attention(
    model: SegmenterBase, frames: Tensor, choices: Sequence[Sequence[tuple[int, float]]]
) -> list[FrameAttention]:
    """Segments a window again and gives the attention of the queries that tracks come from.

    Args:
        model: the segmenter.
        frames: uint8 ``(t, 3, H, W)``.
        choices: per frame and track the frame query, -1 for none, and its share in what the track
            read.

    Raises:
        UserError: if the model's frame decoder has no attention that could be shown.
    """
    decoder: Any = model.sem_seg_head.predictor
    if not isinstance(decoder, MaskedTransformerDecoder):
        kind = type(decoder).__name__
        raise UserError(f"the frame decoder {kind} offers no explanation: its attention is unknown")
    attention = last_attention(decoder, lambda: model.segment(frames, keep_aux=False))
    size = (frames.shape[-2], frames.shape[-1])
    padded = model.padded_size(size)
    covered = (padded[0] / size[0], padded[1] / size[1])
    result = []
    for chosen, of_queries in zip(choices, attention.cpu(), strict=True):
        queries = [query for query, _ in chosen]
        maps = of_queries[queries]
        maps[[query < 0 for query in queries]] = 0
        result.append(FrameAttention(maps, covered, queries, [share for _, share in chosen]))
    return result


class LinkingRecorder:
    """Explains a frame segmenter whose queries are linked: a track is one query of every frame.

    Keeps 8 bytes per query and frame.

    Args:
        model: the segmenter.

    Attributes:
        orders: of every frame the query of each track, int64 ``(Q,)``.
    """

    attention_source = (
        "last layer of the frame decoder, mean over heads; attention of the frame query that is "
        "the track"
    )

    def __init__(self, model: SegmenterBase) -> None:
        self.orders: list[Tensor] = []
        self._model = model

    def recording(self) -> AbstractContextManager[None]:
        """Surrounds every call of the session; nothing has to be listened to."""
        return nullcontext()

    def attention(
        self, frames: Tensor, start: int, track_ids: Sequence[int]
    ) -> list[FrameAttention]:
        """Tells where tracks were seen in a window; see ``Recorder``."""
        orders = self.orders[start : start + len(frames)]
        choices = [[(int(order[track]), 1.0) for track in track_ids] for order in orders]
        return query_attention(self._model, frames, choices)

    def frame_weights(self, track_ids: Sequence[int]) -> None:
        """Gives nothing: all frames count alike."""

    def rows(self) -> list[QueryRows] | None:
        """Gives nothing: no query is carried from frame to frame."""
        return None


class RecordedSession:
    """A session of which every call is recorded; its results are those of the session itself.

    Args:
        session: before its first frame.
        recorder: that of the model for this session.
    """

    def __init__(self, session: VideoSession, recorder: Recorder) -> None:
        self._session = session
        self._recorder = recorder

    def step(self, frames: Tensor) -> VideoInstances:
        """Takes the next frames; see ``VideoSession``."""
        with self._recorder.recording():
            return self._session.step(frames)

    def feed(self, frames: Tensor) -> None:
        """Takes the next frames without reporting on them, if the session can do that."""
        with self._recorder.recording():
            getattr(self._session, "feed", self._session.step)(frames)

    def finish(self) -> VideoInstances:
        """Gives the instances of the whole video."""
        with self._recorder.recording():
            return self._session.finish()
