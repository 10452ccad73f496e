"""Test videos of any length, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from vidseg.errors import DataError

from .clip_mapper import Sample
from .sources import VideoSource

__all__ = ["StreamedVideos"]

_FRAMES_AHEAD = 4  # decoded in advance, for each thread


class StreamedVideos:
    """Gives test videos one by one, each a batch, with a ``FrameStream`` as ``frames``.

    Threads decode the next frames of a video, and the first ones of the video after it. Both are
    bounded, so memory depends on the size of the frames but not on their number.

    Args:
        source: of the records; its mapper offers ``stream``.
        items: numbers of the records.
        num_threads: that decode; 0 decodes in the caller's.
        on_failure: is told the item and the error of a video that cannot be opened, which is then
            left out; without it the error is raised.
    """

    def __init__(
        self,
        source: VideoSource,
        items: Sequence[int],
        *,
        num_threads: int = 0,
        on_failure: Callable[[int, DataError], None] | None = None,
    ) -> None:
        self.source = source
        self.items = items
        self.num_threads = num_threads
        self.on_failure = on_failure

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[list[Sample]]:
        """Gives the videos from the start; a video is closed when the next one is asked for.

        Raises:
            DataError: if one cannot be opened and nobody else is to be told.
        """
        pool = ThreadPoolExecutor(self.num_threads) if self.num_threads else None
        opened: list[Sample] = []
        try:
            for sample in self._open(pool):
                sample["frames"].start()
                opened.append(sample)
                if len(opened) == 2:
                    yield [opened[0]]
                    opened.pop(0)["frames"].close()
            if opened:
                yield list(opened)
        finally:
            for sample in opened:
                sample["frames"].close()
            if pool is not None:
                pool.shutdown()

    def _open(self, pool: Executor | None) -> Iterator[Sample]:
        """Opens the videos; no frame is decoded for it."""
        ahead = _FRAMES_AHEAD * self.num_threads
        for item in self.items:
            try:
                yield self.source.open(item, pool, ahead)
            except DataError as error:
                if self.on_failure is None:
                    raise
                self.on_failure(item, error)
