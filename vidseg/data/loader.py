"""From config to batches: data sets are read, filtered, mapped and loaded.

A batch is a list of samples; models pad and stack what they can.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from vidseg import collectives
from vidseg.errors import ConfigError, DataError

from .catalog import DatasetCatalog, Record
from .categories import category_map
from .mappers import build_mapper, mapper_class
from .sample_loader import SampleLoader
from .samplers import Draw, DrawPlan, share_by_length
from .sources import ClipSource, JoinedSource, PackedRecords, VideoSource
from .streamed_videos import StreamedVideos

__all__ = [
    "build_pass_loader",
    "build_test_loader",
    "build_train_loader",
    "check_mappers",
    "check_num_classes",
    "iterations_per_epoch",
    "test_mapper_kind",
]

_logger = logging.getLogger(__name__)


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
    pools, mappers = [], []
    for setting, mapper, kept, total in _training_records(cfg, settings):
        pools.append(PackedRecords(kept))
        mappers.append(mapper)
        item = DatasetCatalog.metadata(setting.name).item
        _logger.info("%s: training on %d of %d %ss", setting.name, len(kept), total, item)
    seed = cfg.SEED if cfg.SEED >= 0 else int(np.random.SeedSequence().generate_state(1)[0])
    plan = _plan(settings, pools, batch_size, seed)

    def batches() -> Iterator[list[Draw]]:
        for step in count(start_iteration):
            yield plan.batch(step)[rank::world_size]

    source = ClipSource(pools, mappers, seed, cfg.DATALOADER.MAX_ATTEMPTS)
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
        name: of the data set, or its path.
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
    kind = test_mapper_kind(cfg, name)
    _check_kind(name, kind, "DATASET_TYPE_TEST")
    mapper = build_mapper(cfg, kind, is_train=False)
    source = VideoSource(records, mapper, records.damaged)
    # An inherited method would bypass what a derived mapper does to test samples.
    if streamed and "stream" in vars(type(mapper)):
        threads = _num_workers(cfg)
        return StreamedVideos(source, part, num_threads=threads, on_failure=on_failure)
    # One worker reads the next video while the model is busy; more would only hold more videos.
    fits = max((mapper.sample_bytes(records[i]) for i in part), default=0) * 3 < _shared_memory()
    return SampleLoader(
        source,
        lambda: ([index] for index in part),
        num_workers=min(_num_workers(cfg), 1) if fits else 0,
        num_batches=len(part),
        prefetch=1,
        on_failure=on_failure,
    )


def build_pass_loader(
    cfg: Any, *, rank: int | None = None, world_size: int | None = None
) -> SampleLoader:
    """Builds the loader of one pass over DATASETS.TRAIN: one whole record per batch, in order.

    Args:
        cfg: the config.
        rank: of this process, which gets every ``world_size``-th record; asked from
            torch.distributed if left out.
        world_size: number of processes; likewise.

    Raises:
        DataError: if a data set is missing or broken.
    """
    rank, world_size = _rank(rank, world_size)
    sources = []
    settings = _train_settings(cfg)
    for setting in settings:
        mapping = _category_map(setting, settings[-1])
        mapper = build_mapper(cfg, setting.kind, is_train=False, category_map=mapping)
        sources.append(VideoSource(DatasetCatalog.get(setting.name), mapper))
    source = JoinedSource(sources)
    share = range(rank, len(source), world_size)
    return SampleLoader(
        source,
        lambda: ([item] for item in share),
        num_workers=_num_workers(cfg),
        num_batches=len(share),
    )


def iterations_per_epoch(cfg: Any) -> int:
    """Gives the iterations that draw as many samples as there are records to train on.

    Raises:
        ConfigError: if the lists of DATASETS do not fit each other.
        DataError: if a data set is missing or broken.
    """
    rows = _training_records(cfg, _train_settings(cfg))
    return math.ceil(sum(len(kept) for _, _, kept, _ in rows) / cfg.SOLVER.IMS_PER_BATCH)


def check_num_classes(cfg: Any, name: str) -> None:
    """Checks that the model has a class for every label of a data set.

    Raises:
        DataError: if it has not; names the data set, both counts and the key.
    """
    mapper = mapper_class(_mapper_kind(cfg, name))
    key = mapper.num_classes_key
    if not key:
        return
    known = DatasetCatalog.metadata(name)
    wanted = cfg.lookup(key)
    way_out = f"set {key} to {len(known.classes)}"
    if not wanted and getattr(mapper, "counts_classes", False):
        if not cfg.DATASETS.TRAIN:
            return
        trained = cfg.DATASETS.TRAIN[-1]
        wanted = len(DatasetCatalog.metadata(trained).classes)
        way_out = f"as many as {trained} has, on which it is trained"
    if len(known.classes) > wanted:
        where = f" ({known.json_file})" if known.json_file and known.json_file != name else ""
        raise DataError(
            f"{name}{where} has {len(known.classes)} classes, but the model has {wanted}; {way_out}"
        )


def check_mappers(cfg: Any) -> None:
    """Checks that every data set has a mapper that can read its records and takes its settings.

    Raises:
        ConfigError: if a set holds features and its mapper reads frames, or the other way round; or
            if a value is out of range.
    """
    for setting in _train_settings(cfg) if cfg.DATASETS.TRAIN else ():
        _check_kind(setting.name, setting.kind, "DATASET_TYPE")
        build_mapper(cfg, setting.kind, is_train=True)
    for name in cfg.DATASETS.TEST:
        kind = test_mapper_kind(cfg, name)
        _check_kind(name, kind, "DATASET_TYPE_TEST")
        build_mapper(cfg, kind, is_train=False)


def _check_kind(name: str, kind: str, key: str) -> None:
    """Checks one of them; ``key`` of DATASETS names the mapper."""
    holds = "features" if DatasetCatalog.metadata(name).feature_dim else "frames"
    reads = mapper_class(kind).reads
    if reads != holds:
        fitting = "sequence" if holds == "features" else "video_instance"
        raise ConfigError(
            f"DATASETS.{key}: the mapper {kind!r} reads {reads}, but {name} holds {holds}; "
            f"use e.g. {fitting!r}"
        )


@dataclass(frozen=True)
class _TrainSetting:
    name: str
    ratio: float
    need_map: bool
    kind: str


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


def _training_records(
    cfg: Any, settings: Sequence[_TrainSetting]
) -> Iterator[tuple[_TrainSetting, Any, list[Record], int]]:
    """Gives each set's setting, mapper, the records to train on, and how many there are in all."""
    for setting in settings:
        records = DatasetCatalog.get(setting.name)
        _check_kind(setting.name, setting.kind, "DATASET_TYPE")
        mapping = _category_map(setting, settings[-1])
        if mapping is None:
            check_num_classes(cfg, setting.name)
        mapper = build_mapper(cfg, setting.kind, is_train=True, category_map=mapping)
        drop_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        kept = mapper.select(records, setting.name, drop_empty=drop_empty)
        yield setting, mapper, kept, len(records)


def _category_map(setting: _TrainSetting, target: _TrainSetting) -> np.ndarray | None:
    """Gives the class of the model for each class of a set; None if they are the same."""
    if not setting.need_map:
        return None
    sets = (DatasetCatalog.metadata(one.name) for one in (setting, target))
    return category_map(*sets)


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


def _mapper_kind(cfg: Any, name: str) -> str:
    """Gives the mapper of a data set of the config, the one for training if it has two."""
    resolved = DatasetCatalog.resolve(name)
    names = [DatasetCatalog.resolve(known) for known in cfg.DATASETS.TRAIN]
    if resolved not in names:
        return test_mapper_kind(cfg, name)
    kinds = _as_long(cfg.DATASETS.DATASET_TYPE, "DATASET_TYPE", names)
    return str(kinds[names.index(resolved)])


def _plan(
    settings: Sequence[_TrainSetting], pools: Sequence[PackedRecords], batch_size: int, seed: int
) -> DrawPlan:
    ratios = [setting.ratio for setting in settings]
    try:
        return DrawPlan([len(pool) for pool in pools], ratios, batch_size=batch_size, seed=seed)
    except ValueError as error:
        raise ConfigError(f"DATASETS.DATASET_RATIO: {error}") from None


def _rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is not None and world_size is not None:
        return rank, world_size
    return collectives.rank(), collectives.world_size()


def _num_workers(cfg: Any) -> int:
    """Gives the wanted number of workers, at most one per processor that we may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(min(cfg.DATALOADER.NUM_WORKERS, available or 1), 0)


def _shared_memory() -> int:
    """Gives the free bytes through which workers hand over samples; containers may have few."""
    path = "/dev/shm"
    return shutil.disk_usage(path).free if os.path.isdir(path) else 2**62
