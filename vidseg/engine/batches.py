"""Batches of a training run: their stream, their parts, their random numbers, their names."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vidseg.data.sample_loader import WorkerError
from vidseg.errors import UserError

__all__ = [
    "Sample",
    "TrainingError",
    "describe_sample",
    "seed_iteration",
    "split_batch",
    "stream_batches",
]

logger = logging.getLogger(__name__)

Sample = dict[str, Any]

_MAX_LOADER_RESTARTS = 3


class TrainingError(UserError):
    """Reports a run that cannot go on."""

    exit_code = 1


def stream_batches(
    make_loader: Callable[[int], Iterable[list[Sample]]], position: Callable[[], int]
) -> Iterator[list[Sample]]:
    """Streams batches; a loader whose worker process died is started again where it stood.

    Args:
        make_loader: gives the stream that starts at an iteration.
        position: the iteration whose batch is wanted next.

    Raises:
        TrainingError: if workers die again and again at the same iteration.
    """
    restarts, last = 0, -1
    while True:
        try:
            yield from make_loader(position())
            return
        except (RuntimeError, WorkerError) as error:
            # torch has no type for it, and whoever makes the loader may use its own.
            if not isinstance(error, WorkerError) and "DataLoader worker" not in str(error):
                raise
            iteration = position()
            restarts = restarts + 1 if last == iteration else 1
            last = iteration
            if restarts > _MAX_LOADER_RESTARTS:
                raise TrainingError(
                    f"data loader workers keep dying or hanging at iteration {iteration} (out of "
                    "memory?); lower DATALOADER.NUM_WORKERS and give the command again"
                ) from error
            logger.warning(
                "a data loader worker died or hung at iteration %d (out of memory?); starting it "
                "again",
                iteration,
            )


def split_batch(samples: Sequence[Sample], num_parts: int) -> list[list[Sample]]:
    """Cuts a batch into parts of nearly equal size, never an empty one."""
    num_parts = min(num_parts, len(samples))
    bounds = [len(samples) * i // num_parts for i in range(num_parts + 1)]
    return [list(samples[a:b]) for a, b in itertools.pairwise(bounds)]


def seed_iteration(seed: int, rank: int, iteration: int) -> None:
    """Seeds Python, NumPy and torch (all devices) as a function of the three numbers."""
    words = np.random.SeedSequence([seed, rank, iteration]).generate_state(2, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]) & 0xFFFFFFFF)  # noqa: NPY002 (for models that use the old API)
    torch.manual_seed(int(words[1]) & 0x7FFFFFFFFFFFFFFF)


def describe_sample(sample: Sample) -> str:
    """Names a sample so that a person finds it: video or document, first file, frames."""
    item = "document" if "features" in sample else "video"
    frames = sample.get("frame_indices", [])
    shown = f"{frames[0]} to {frames[-1]}" if isinstance(frames, range) else list(frames)
    first_file = list(sample.get("file_names", ()))[:1]  # generated samples have none
    return ", ".join([f"{item} {sample.get('video_id', '?')}", *first_file, f"frames {shown}"])
