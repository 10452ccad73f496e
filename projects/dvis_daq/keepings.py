"""What the offline model keeps of the frames of a clip until the refiner has seen them all.

Shapes: N instances, T frames, M tracks of a frame, Q frame queries, C channels, K classes,
h w the mask features' size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.modeling.meta_arch import FrameStore, KeepingSpace, SequenceBuffer
from vidseg.modeling.postprocess import link_step
from vidseg.modeling.transformer_decoder import DecoderOutput

from .inference import FrameTracks
from .memory import EndedTracks, foreground_score
from .settings import RefinerInput

__all__ = ["ClipKeepings", "ClipSequences"]

_BOUND = "MODEL.REFINER.MEMORY_MB"


@dataclass
class ClipSequences:
    """Instances over all frames of a clip, as the refiner reads them.

    Attributes:
        ids: int64 ``(N,)``, tracks in order of birth, then linked frame queries.
        logits: mean class logits before the refiner, ``(N, K+1)``.
        queries: query embeddings ``(N, T, C)``; position codes where the track does not exist.
        padding: bool ``(N, T)``, True where the track does not exist.
    """

    ids: Tensor
    logits: Tensor
    queries: SequenceBuffer
    padding: Tensor

    def __len__(self) -> int:
        return len(self.ids)


class ClipKeepings:
    """Frame by frame: mask features, embeddings of the frame queries and of the tracks, links.

    In bytes per frame: 4 C h w, 4 C Q and 4 C M in single precision, and little besides. Up to
    ``memory_mb`` they lie where the model is, the others in a temporary file.

    Args:
        memory_mb: bound in MiB.
        link: whether the frame queries are linked for those that the tracks leave room for.
    """

    def __init__(self, memory_mb: float, *, link: bool) -> None:
        self._space = KeepingSpace(memory_mb, _BOUND)
        self.features = FrameStore(self._space)  # (C, h, w)
        self.embeds = FrameStore(self._space)  # (Q, C)
        self._ids = FrameStore(self._space)  # (M,)
        self._tracks = FrameStore(self._space)  # (M, C)
        self._links = _QueryLinks(self._space) if link else None

    @property
    def file_bytes(self) -> int:
        """How much of it lies in the file."""
        return self._space.file_bytes

    @property
    def num_queries(self) -> int:
        """Queries Q of a frame, 0 before the first one."""
        return len(self.embeds[0]) if len(self.embeds) else 0

    def add_tracks(self, tracked: FrameTracks) -> None:
        """Keeps the tracks of the next frame."""
        self._ids.append(tracked.ids)
        self._tracks.append(tracked.embeds)

    def add_window(self, window: DecoderOutput) -> None:
        """Keeps what the segmenter says about the next frames.

        Raises:
            ResourceError: if the disk is full.
        """
        for features, embeds, logits in zip(
            window.mask_features, window.embeds, window.logits, strict=True
        ):
            self.features.append(features)
            self.embeds.append(embeds)
            if self._links is not None:
                self._links.add(embeds, logits)

    def sequences(self, tracks: EndedTracks, wanted: RefinerInput, first_id: int) -> ClipSequences:
        """Lays tracks out over the clip, filled up with the best linked frame queries.

        Args:
            tracks: in order of id; others are left out.
            wanted: how many instances there should be.
            first_id: id of the first linked query.
        """
        ids, logits, filling = tracks.ids, tracks.logits, tracks.ids[:0]
        missing = wanted.num_instances - len(tracks)
        if self._links is not None and missing > 0 and len(self.embeds):
            filling, filling_logits = self._links.best(missing)
            ids = torch.cat([ids, first_id + filling])
            logits = torch.cat([logits, filling_logits])
        queries = SequenceBuffer(
            (len(ids), len(self.embeds), tracks.positions.shape[1]),
            dtype=tracks.positions.dtype,
            device=tracks.positions.device,
            space=self._space,
        )
        padding = torch.zeros(queries.shape[:2], dtype=torch.bool, device=ids.device)
        padding[: len(tracks)] = True
        for frame in range(len(self.embeds)):
            values = self._frame(frame, tracks, padding)
            if self._links is not None and len(filling):
                linked = self.embeds[frame][self._links.order(frame)[filling]]
                values = torch.cat([values, linked.to(values.dtype)])
            queries.write_frames(frame, values[None])
        return ClipSequences(ids, logits, queries, padding)

    def _frame(self, frame: int, tracks: EndedTracks, padding: Tensor) -> Tensor:
        """Gives the tracks' rows of a frame ``(N, C)`` and marks those that exist there."""
        values = tracks.positions.clone()
        if not len(tracks):
            return values
        ids = self._ids[frame]
        rows = torch.searchsorted(tracks.ids, ids).clamp(max=len(tracks) - 1)
        found = tracks.ids[rows] == ids
        values[rows[found]] = self._tracks[frame][found].to(values.dtype)
        padding[rows[found], frame] = False
        return values


class _QueryLinks:
    """Frame queries linked from each frame to the next, without the tracker.

    Args:
        space: for the orders.
    """

    def __init__(self, space: KeepingSpace) -> None:
        self._orders = FrameStore(space)  # (Q,)
        self._last: Tensor | None = None  # (Q, C), in the order of the first frame
        self._sum: Tensor | None = None  # (Q, K+1)

    def add(self, embeds: Tensor, logits: Tensor) -> None:
        """Links the next frame: ``(Q, C)`` and ``(Q, K+1)``."""
        if self._last is None or self._sum is None:
            order = torch.arange(len(embeds), device=embeds.device)
            self._sum = logits.float()
        else:
            order = link_step(self._last, embeds)
            self._sum = self._sum + logits.float()[order]
        self._last = embeds[order]
        self._orders.append(order.to(torch.int32))

    def order(self, frame: int) -> Tensor:
        """Gives the query of a frame for each one of the first frame, int64 ``(Q,)``."""
        return self._orders[frame].long()

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """Gives the rows of the best ``count`` sequences, in order, and their mean logits."""
        assert self._sum is not None
        logits = self._sum / len(self._orders)
        if len(logits) <= count:
            rows = torch.arange(len(logits), device=logits.device)
        else:
            rows = foreground_score(logits).topk(count).indices.sort().values
        return rows, logits[rows]
