"""The temporal refiner on videos of any length: one buffer, a few instances or frames at a time.

A layer first lets the frames of an instance read each other, then the instances of a frame; so it
is computed by instances, then by frames, in place. The results are those of the whole at once.

Shapes: N instances, T frames, Q frame queries, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vidseg.modeling.meta_arch import FrameStore, SequenceBuffer

from .refiner import TemporalRefiner

__all__ = ["classify_in_parts", "refine_in_place"]

WORKSPACE = 32 * 2**20
"""Bytes that intermediate results may take; one instance over all frames is the least."""

_COPIES_ALONG_TIME = 12  # of a value: queries, keys, values, their products, the residual, norms
_COPIES_WITHIN_FRAMES = 12


def refine_in_place(
    refiner: TemporalRefiner,
    queries: SequenceBuffer,
    frame_embeds: FrameStore,
    padding: Tensor | None = None,
) -> None:
    """Runs all layers and leaves the output of the last one, before the norm, in ``queries``.

    Args:
        refiner: the network, in eval mode.
        queries: sequences of N instances over T frames.
        frame_embeds: embeddings of the frame queries, T times ``(Q, C)``.
        padding: bool ``(N, T)``, as the refiner reads it.
    """
    blocked = refiner.blocked(padding)
    for layer in range(refiner.num_layers):
        _along_time(refiner, layer, queries, blocked)
        _within_frames(refiner, layer, queries, frame_embeds)


def classify_in_parts(
    refiner: TemporalRefiner, queries: SequenceBuffer, padding: Tensor | None = None
) -> Tensor:
    """Gives class logits ``(N, K+1)`` of refined sequences.

    Args: as :func:`refine_in_place`.
    """
    logits = []
    for start, stop in _parts(queries.shape[0], 4 * _instance_bytes(queries)):
        part = None if padding is None else padding[None, start:stop]
        logits.append(refiner.classify(queries.instances(start, stop)[None], part)[0])
    return torch.cat(logits)


def _along_time(
    refiner: TemporalRefiner, layer: int, queries: SequenceBuffer, blocked: Tensor | None
) -> None:
    size = _instance_bytes(queries)
    # Reading from a file pays for many instances at once, computing does not.
    for start, stop in _parts(queries.shape[0], 2 * size):
        group = queries.instances(start, stop)
        for first, last in _parts(len(group), 2 * _COPIES_ALONG_TIME * size):
            part = None if blocked is None else blocked[start + first : start + last]
            group[first:last] = refiner.along_time(layer, group[first:last], part)
        queries.write_instances(start, group)


def _within_frames(
    refiner: TemporalRefiner, layer: int, queries: SequenceBuffer, frame_embeds: FrameStore
) -> None:
    num_instances, num_frames, channels = queries.shape
    values = _COPIES_WITHIN_FRAMES * channels + 2 * refiner.feedforward_dim
    size = 4 * num_instances * values
    for start, stop in _parts(num_frames, size):
        memory = frame_embeds.stacked(range(start, stop))
        x = refiner.within_frames(layer, queries.frames(start, stop), memory)
        queries.write_frames(start, x)


def _instance_bytes(queries: SequenceBuffer) -> int:
    return 4 * queries.shape[1] * queries.shape[2]


def _parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Splits ``count`` items of ``size`` bytes each so that a part fits into the workspace."""
    step = max(1, WORKSPACE // max(size, 1))
    for start in range(0, count, step):
        yield start, min(start + step, count)
