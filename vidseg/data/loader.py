"""From config to batches: data sets are read, filtered, mapped and loaded in worker processes.

A batch is a list of samples; models pad and stack what they can.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from vidseg.errors import ConfigError, DataError

from .catalog import DatasetCatalog, Record, Records
from .categories import category_map
from .clip_mapper import Sample, build_mapper
from .samplers import Draw, DrawPlan, share_by_length
from .sources import ClipSource, Failure, PackedRecords, Source, VideoSource
from .streamed_videos import StreamedVideos

__all__ = ["SampleLoader", "build_test_loader", "build_train_loader", "check_num_classes"]

_logger = logging.getLogger(__name__)

# After which a loader process that gives nothing counts as hung, e.g. on a network disk.
_PATIENCE_SECONDS = 1200.0
_LOOK_SECONDS = 5  # between two looks at loader processes that give nothing


class SampleLoader:
    """Gives batches, made in worker processes or in this one.

    Args:
        source: makes one sample of one item.
        batches: called for every iteration over the loader; gives lists of items.
        num_workers: loader processes; 0 works in this process.
        num_batches: length of the loader, -1 if it is endless.
        prefetch: batches that each worker prepares in advance.
        start_method: of the workers; the platform's default if left out.
        on_failure: is told the item and the error of data that cannot be read, which are then left
            out; without it the error is raised.
    """

    def __init__(
        self,
        source: Source,
        batches: Callable[[], Iterable[list[Any]]],
        *,
        num_workers: int = 0,
        num_batches: int = -1,
        prefetch: int = 2,
        start_method: str | None = None,
        on_failure: Callable[[Any, DataError], None] | None = None,
    ) -> None:
        self.source = source
        self.batches = batches
        self.num_workers = num_workers
        self.num_batches = num_batches
        self.prefetch = prefetch
        self.start_method = start_method
        self.on_failure = on_failure

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: if the loader is endless.
        """
        if self.num_batches < 0:
            raise TypeError("this loader is endless")
        return self.num_batches

    def __iter__(self) -> Iterator[list[Sample]]:
        """Gives the batches from the start.

        Raises:
            DataError: if a sample cannot be made (names the file) or a worker died or hangs.
        """
        parallel = self.num_workers > 0
        loader: DataLoader[Any] = DataLoader(
            self.source,
            batch_sampler=_Batches(self.batches),
            num_workers=self.num_workers,
            collate_fn=list,
            worker_init_fn=_init_worker,
            prefetch_factor=self.prefetch if parallel else None,
            multiprocessing_context=self.start_method if parallel else None,
            timeout=_LOOK_SECONDS if parallel else 0,
        )
        loaded = _start(loader)
        try:
            for items in self.batches():
                outcomes = zip(items, self._next(loaded, items), strict=True)
                batch = [sample for item, sample in outcomes if not self._failed(item, sample)]
                if batch:
                    yield batch
        finally:
            # Ends the workers now; left to a traceback or the garbage collector it takes seconds.
            del loaded

    def _failed(self, item: Any, outcome: Sample | Failure) -> bool:
        if not isinstance(outcome, Failure):
            return False
        _logger.debug("%s", outcome.trace)
        if self.on_failure is None or not isinstance(outcome.error, DataError):
            raise outcome.error
        self.on_failure(item, outcome.error)
        return True

    def _next(self, loaded: Iterator[Any], items: list[Any]) -> list[Any]:
        started = time.monotonic()
        while True:
            try:
                batch: list[Any] = next(loaded)
                return batch
            except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
                fate = "died"
                if "DataLoader timed out" in str(error):
                    if time.monotonic() - started < _PATIENCE_SECONDS:
                        continue
                    fate = "hangs"
                    # Asking it to end, as torch does, has no effect on a process that hangs.
                    for worker in getattr(loaded, "_workers", ()):
                        worker.kill()
                elif isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                # The others come from fetching a batch that a worker made before its death.
                raise DataError(self._death_message(items, fate, str(error))) from None

    def _death_message(self, items: list[Any], fate: str, reason: str) -> str:
        places = "; ".join(sorted({self.source.describe(item) for item in items}))
        return (
            f"a data loader process {fate}: {places} was due ({reason.partition(chr(10))[0]}); "
            f"if memory ran out, lower DATALOADER.NUM_WORKERS (now {self.num_workers})"
        )


def build_train_loader(
    cfg: Any, *, start_iteration: int = 0, rank: int | None = None, world_size: int | None = None
) -> SampleLoader:
    """Builds the endless loader of DATASETS.TRAIN.

    Every random draw is a function of (SEED, number of the draw), so starting at any iteration
    gives what an uninterrupted run would have seen, with any number of workers.

    Args:
        cfg: the config.
        start_iteration: iteration of the first batch.
        rank: of this process; asked from torch.distributed if left out.
        world_size: number of processes; likewise.

    Returns:
        A loader whose batches hold ``IMS_PER_BATCH / world_size`` samples.

    Raises:
        ConfigError: if the lists of DATASETS do not fit each other, or the batch the processes.
        DataError: if a data set is missing, broken or empty.
    """
    rank, world_size = _rank(rank, world_size)
    batch_size = cfg.SOLVER.IMS_PER_BATCH
    if batch_size < 1 or batch_size % world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {batch_size} must be a positive multiple of the number of "
            f"processes, {world_size}"
        )
    settings = _train_settings(cfg)
    target = DatasetCatalog.metadata(settings[-1].name)
    pools, mappers = [], []
    for setting in settings:
        records = DatasetCatalog.get(setting.name)
        mapping = None
        if setting.need_map:
            mapping = category_map(DatasetCatalog.metadata(setting.name), target)
        else:
            check_num_classes(cfg, setting.name)
        kept = _trainable(
            records, setting.name, mapping, drop_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
        pools.append(PackedRecords(kept))
        mappers.append(build_mapper(cfg, setting.kind, is_train=True, category_map=mapping))
        _logger.info("%s: training on %d of %d videos", setting.name, len(kept), len(records))
    seed = cfg.SEED if cfg.SEED >= 0 else int(np.random.SeedSequence().generate_state(1)[0])
    plan = _plan(settings, pools, batch_size, seed)

    def batches() -> Iterator[list[Draw]]:
        for step in count(start_iteration):
            yield plan.batch(step)[rank::world_size]

    source = ClipSource(pools, mappers, seed)
    return SampleLoader(source, batches, num_workers=_num_workers(cfg))


def build_test_loader(
    cfg: Any,
    name: str,
    *,
    rank: int | None = None,
    world_size: int | None = None,
    finished: Collection[Any] = (),
    on_damaged: Callable[[Any, str], None] | None = None,
    streamed: bool = False,
) -> SampleLoader | StreamedVideos:
    """Builds the loader of one of DATASETS.TEST: one whole video per batch, in order.

    Args:
        cfg: the config.
        name: of the data set, or path of a json file.
        rank: of this process, which gets videos of about as many frames as the others; asked from
            torch.distributed if left out.
        world_size: number of processes; likewise.
        finished: ids of videos that are left out; the same for all ranks.
        on_damaged: is told the id of every video that cannot be read, and why; such videos are left
            out. Without it any of them is an error.
        streamed: whether ``frames`` may be a ``FrameStream``, which holds a few frames of a video.

    Raises:
        DataError: if the data set is missing or broken.
    """
    rank, world_size = _rank(rank, world_size)
    records = DatasetCatalog.get(name) if on_damaged is None else DatasetCatalog.read(name)
    due = [i for i, record in enumerate(records) if record["video_id"] not in finished]
    share = share_by_length([records[i]["length"] for i in due], rank, world_size)
    part = [due[i] for i in share]

    def report(item: int, error: DataError) -> None:
        if on_damaged is not None:
            on_damaged(records[item]["video_id"], str(error))

    on_failure = None if on_damaged is None else report
    mapper = build_mapper(cfg, test_mapper_kind(cfg, name), is_train=False)
    source = VideoSource(records, mapper, records.damaged)
    # An inherited method would bypass what a derived mapper does to test samples.
    if streamed and "stream" in vars(type(mapper)):
        threads = _num_workers(cfg)
        return StreamedVideos(source, part, num_threads=threads, on_failure=on_failure)
    # One worker reads the next video while the model is busy; more would only hold more videos.
    fits = max((_video_bytes(records[i]) for i in part), default=0) * 3 < _shared_memory()
    return SampleLoader(
        source,
        lambda: ([index] for index in part),
        num_workers=min(_num_workers(cfg), 1) if fits else 0,
        num_batches=len(part),
        prefetch=1,
        on_failure=on_failure,
    )


def check_num_classes(cfg: Any, name: str) -> None:
    """Checks that the model has a class for every label of a data set.

    Raises:
        DataError: if it has not; names the data set, both counts and the key.
    """
    known = DatasetCatalog.metadata(name)
    wanted = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if len(known.classes) > wanted:
        where = f" ({known.json_file})" if known.json_file and known.json_file != name else ""
        raise DataError(
            f"{name}{where} has {len(known.classes)} classes, but the model has {wanted}; set "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES to {len(known.classes)}"
        )


@dataclass(frozen=True)
class _TrainSetting:
    name: str
    ratio: float
    need_map: bool
    kind: str


class _Batches:
    """What a DataLoader takes as batch sampler."""

    def __init__(self, batches: Callable[[], Iterable[list[Any]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.batches())


def _train_settings(cfg: Any) -> list[_TrainSetting]:
    node = cfg.DATASETS
    names = [DatasetCatalog.resolve(name) for name in node.TRAIN]
    if not names:
        raise ConfigError(
            "DATASETS.TRAIN is empty; name a data set, e.g. shapes_vis_standard_train"
        )
    ratios = _as_long(node.DATASET_RATIO, "DATASET_RATIO", names)
    maps = _as_long(node.DATASET_NEED_MAP, "DATASET_NEED_MAP", names)
    kinds = _as_long(node.DATASET_TYPE, "DATASET_TYPE", names)
    return [_TrainSetting(*row) for row in zip(names, ratios, maps, kinds, strict=True)]


def _as_long(
    values: Sequence[Any], key: str, names: Sequence[str], main: str = "TRAIN"
) -> list[Any]:
    """Gives one value per data set; a single value stands for all of them."""
    if len(values) == 1:
        return list(values) * len(names)
    if len(values) != len(names):
        raise ConfigError(
            f"DATASETS.{key} has {len(values)} entries, but DATASETS.{main} has {len(names)}; "
            "give one for each, or a single one for all"
        )
    return list(values)


def test_mapper_kind(cfg: Any, name: str) -> str:
    """Gives the mapper of a test data set, of DATASETS.DATASET_TYPE_TEST."""
    names = [DatasetCatalog.resolve(known) for known in cfg.DATASETS.TEST]
    resolved = DatasetCatalog.resolve(name)
    if resolved not in names:
        return "video_instance"
    kinds = _as_long(cfg.DATASETS.DATASET_TYPE_TEST, "DATASET_TYPE_TEST", names, "TEST")
    return str(kinds[names.index(resolved)])


def _plan(
    settings: Sequence[_TrainSetting], pools: Sequence[PackedRecords], batch_size: int, seed: int
) -> DrawPlan:
    ratios = [setting.ratio for setting in settings]
    try:
        return DrawPlan([len(pool) for pool in pools], ratios, batch_size=batch_size, seed=seed)
    except ValueError as error:
        raise ConfigError(f"DATASETS.DATASET_RATIO: {error}") from None


def _trainable(
    records: Records, name: str, mapping: np.ndarray | None, *, drop_empty: bool
) -> list[Record]:
    if not records.annotated:
        raise DataError(f"{name} has no annotations: it is a test split and cannot be trained on")
    kept = [r for r in records if not drop_empty or _has_object(r, mapping)]
    if not any(_has_object(record, mapping) for record in kept):
        raise DataError(f"{name}: none of the {len(records)} videos has an object to train on")
    return kept


def _has_object(record: Record, mapping: np.ndarray | None) -> bool:
    return any(
        not item["iscrowd"] and (mapping is None or mapping[item["category_id"]] >= 0)
        for frame in record["annotations"]
        for item in frame
    )


def _rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _num_workers(cfg: Any) -> int:
    """Gives the wanted number of workers, at most one per processor that we may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(min(cfg.DATALOADER.NUM_WORKERS, available or 1), 0)


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Starts the workers of a loader.

    torch lets the death of a worker raise an error wherever this process happens to be, be it in
    the middle of an optimiser step. Waiting for the batch that does not come shows it as well.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    loaded = iter(loader)
    signal.signal(signal.SIGCHLD, handler if handler is not None else signal.SIG_DFL)
    return loaded


def _init_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A signal to the whole process group must not end the workers: the main process decides what
    # it means, and may want to finish its step. It still ends them one by one by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def _video_bytes(record: Record) -> int:
    return int(record["length"] * record["height"] * record["width"] * 3)


def _shared_memory() -> int:
    """Gives the free bytes through which workers hand over samples; containers may have few."""
    path = "/dev/shm"
    return shutil.disk_usage(path).free if os.path.isdir(path) else 2**62
