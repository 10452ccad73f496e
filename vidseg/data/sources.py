"""What loaders draw from: packed records and the sources that turn them into samples.

Sources run inside worker processes, where an exception would lose its one sentence on the way to
the main process; they return failures instead.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import pickle
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from vidseg.errors import DataError, UserError

from .catalog import Record
from .mappers import Rejected, Sample
from .samplers import Draw, draw_rng

__all__ = ["ClipSource", "Failure", "JoinedSource", "PackedRecords", "Source", "VideoSource"]

_ATTEMPTS_BEFORE_WARNING = 3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """What a worker sends instead of a sample."""

    error: UserError
    trace: str


class PackedRecords:
    """Records as one block of bytes, so that worker processes share them without copies."""

    def __init__(self, records: Sequence[Record]) -> None:
        parts = [pickle.dumps(record, protocol=-1) for record in records]
        self._ends = np.cumsum([len(part) for part in parts])
        self._bytes = b"".join(parts)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Record:
        start = int(self._ends[index - 1]) if index else 0
        record: Record = pickle.loads(memoryview(self._bytes)[start : int(self._ends[index])])
        return record


class Source(Dataset[Any]):
    """Makes samples; a failure is returned, not raised."""

    def __getitem__(self, item: Any) -> Sample | Failure:
        try:
            return self.make(item)
        except UserError as error:
            return _failure(error, str(error))
        except (OSError, ValueError, KeyError, TypeError, IndexError, MemoryError) as error:
            reason = f"{type(error).__name__}: {error}"
            return _failure(DataError(f"{self.describe(item)} cannot be mapped: {reason}"), reason)

    def make(self, item: Any) -> Sample:
        """Gives the sample of an item."""
        raise NotImplementedError

    def describe(self, item: Any) -> str:
        """Names an item in a message."""
        raise NotImplementedError


class ClipSource(Source):
    """Makes the training sample of a draw.

    Args:
        pools: records of every data set.
        mappers: mapper of every data set.
        seed: of the run.
        max_attempts: records that are tried for one draw before it counts as a failure.
    """

    def __init__(
        self, pools: list[PackedRecords], mappers: list[Any], seed: int, max_attempts: int = 100
    ) -> None:
        self.pools = pools
        self.mappers = mappers
        self.seed = seed
        self.max_attempts = max_attempts

    def make(self, item: Draw) -> Sample:
        """Gives the sample of a draw; tries other records of its data set if one is rejected.

        Raises:
            DataError: if all attempts are; tells how often for which reason.
        """
        pool, mapper = self.pools[item.dataset], self.mappers[item.dataset]
        reasons: Counter[str] = Counter()
        for attempt in range(self.max_attempts):
            rng = draw_rng(self.seed, item.number, attempt)
            number = item.record if attempt == 0 else int(rng.integers(len(pool)))
            sample: Sample | Rejected = mapper(pool[number], rng)
            if not isinstance(sample, Rejected):
                return sample
            reasons[sample.reason] += 1
            if attempt == _ATTEMPTS_BEFORE_WARNING - 1:
                _logger.warning("%s", self._describe_rejections(item, reasons))
        raise DataError(
            f"{self._describe_rejections(item, reasons)}; look at the data, or raise "
            f"DATALOADER.MAX_ATTEMPTS ({self.max_attempts})"
        )

    def _describe_rejections(self, item: Draw, reasons: Counter[str]) -> str:
        counts = ", ".join(f"{reason}: {number}" for reason, number in reasons.most_common())
        return (
            f"{reasons.total()} clips in a row teach nothing ({counts}), the first of "
            f"{self.describe(item)}"
        )

    def describe(self, item: Draw) -> str:
        """Names the record of a draw."""
        return _name_record(self.pools[item.dataset][item.record])


class VideoSource(Source):
    """Makes test samples by number of the record.

    Args:
        records: of the data set.
        mapper: in test mode.
        damaged: what is known to be wrong with a record, by ``video_id``.
    """

    def __init__(
        self, records: Sequence[Record], mapper: Any, damaged: Mapping[Any, str] | None = None
    ) -> None:
        self.pool = PackedRecords(records)
        self.mapper = mapper
        self.damaged = dict(damaged or {})

    def make(self, item: int) -> Sample:
        """Gives a whole video.

        Raises:
            DataError: if it is damaged.
        """
        sample: Sample = self.mapper(self._sound(item), draw_rng(0, item))
        return sample

    def open(self, item: int, pool: Executor | None, ahead: int) -> Sample:
        """Gives a video that is decoded when its frames are needed; see ``ClipMapper.stream``.

        Raises:
            DataError: if it is known to be damaged.
        """
        sample: Sample = self.mapper.stream(self._sound(item), pool, ahead)
        return sample

    def _sound(self, item: int) -> Record:
        record = self.pool[item]
        if record["video_id"] in self.damaged:
            raise DataError(self.damaged[record["video_id"]])
        return record

    def describe(self, item: int) -> str:
        """Names the video."""
        return _name_record(self.pool[item])


class JoinedSource(Source):
    """Makes test samples of several data sets, numbered one after the other.

    Args:
        parts: the data sets.
    """

    def __init__(self, parts: Sequence[VideoSource]) -> None:
        self.parts = list(parts)
        self._ends = list(itertools.accumulate(len(part.pool) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def make(self, item: int) -> Sample:
        """Gives the sample of a number."""
        part, number = self._place(item)
        return part.make(number)

    def describe(self, item: int) -> str:
        """Names the record of a number."""
        part, number = self._place(item)
        return part.describe(number)

    def _place(self, item: int) -> tuple[VideoSource, int]:
        index = bisect.bisect_right(self._ends, item)
        return self.parts[index], item - (self._ends[index - 1] if index else 0)


def _failure(error: UserError, trace: str) -> Failure:
    return Failure(error, f"{trace}\n{traceback.format_exc()}")


def _name_record(record: Record) -> str:
    item = "document" if "feature_dim" in record else "video"
    name = f"{item} {record['video_id']}"
    origin = record.get("json_file") or next(iter(record["file_names"]), "")  # none if generated
    return f"{name} of {origin}" if origin else name
