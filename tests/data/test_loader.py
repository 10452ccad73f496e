from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.data.catalog import DatasetCatalog
from vidseg.data.loader import build_test_loader, build_train_loader, check_num_classes
from vidseg.data.mappers import Rejected
from vidseg.data.sample_loader import WorkerError
from vidseg.data.sources import PackedRecords
from vidseg.errors import ConfigError, DataError


@pytest.fixture
def cfg(small_set) -> CfgNode:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (str(small_set.path),)
    cfg.INPUT.SAMPLING_FRAME_NUM, cfg.INPUT.SAMPLING_FRAME_RANGE = 3, 1
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (20, 24), 0
    cfg.INPUT.PSEUDO.MIN_SIZE_TRAIN = (20, 24)
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def _take(cfg: CfgNode, count: int, **kwargs: Any) -> list[Any]:
    return list(itertools.islice(build_train_loader(cfg, **kwargs), count))


def _same(a: Any, b: Any) -> bool:
    return (
        a["video_id"] == b["video_id"]
        and torch.equal(a["frames"], b["frames"])
        and torch.equal(a["instances"].masks, b["instances"].masks)
    )


def test_resumed_run_sees_what_the_whole_run_saw(cfg) -> None:
    whole, rest = _take(cfg, 6), _take(cfg, 3, start_iteration=3)
    for ours, theirs in zip(whole[3:], rest, strict=True):
        assert all(map(_same, ours, theirs))
    cfg.SEED = 7
    assert not all(_same(*pair) for pair in zip(whole[0], _take(cfg, 1)[0], strict=True))


def test_workers_change_nothing(cfg) -> None:
    alone = _take(cfg, 4)
    cfg.DATALOADER.NUM_WORKERS = 2
    loader = build_train_loader(cfg)
    loader.num_workers = 2
    for ours, theirs in zip(alone, itertools.islice(loader, 4), strict=True):
        assert all(map(_same, ours, theirs))


class _Fragments:
    def __call__(self, record: Any, rng: Any) -> Any:
        whole = torch.arange(100.0)
        parts = {str(number): whole[number:60:7] for number in range(50)}
        return {**parts, "large": torch.ones(1 << 18), "half": torch.ones(2, dtype=torch.bfloat16)}


def test_small_tensors_come_without_files(cfg) -> None:
    loader = build_train_loader(cfg)
    loader.source.mappers[0], loader.num_workers = _Fragments(), 1
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    batch = next(iter(loader))
    if before:
        assert len(os.listdir("/proc/self/fd")) - before < 50  # of 200 small tensors
    for sample in batch:
        assert sample["3"].tolist() == list(range(3, 60, 7))
        sample["3"] += 1  # as any other tensor
        assert sample["large"].sum() == 1 << 18
        assert sample["half"].dtype == torch.bfloat16


KILLED = """
import os, signal, torch
from vidseg.data.sample_loader import SampleLoader
from vidseg.data.sources import Source
class Parts(Source):
    def make(self, item):
        return {str(n): torch.zeros(2000) for n in range(40)}  # more than a pipe holds
batches = iter(SampleLoader(Parts(), lambda: ([n] for n in range(100)), num_workers=2))
next(batches)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX systems do")
def test_workers_end_with_a_killed_process() -> None:
    """They hold its output open, so that who waits for the end of that would wait for them."""
    words = [sys.executable, "-c", KILLED]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
def test_workers_can_be_spawned(cfg) -> None:
    alone = _take(cfg, 1)[0]
    loader = build_train_loader(cfg)
    loader.num_workers, loader.start_method = 1, "spawn"
    assert all(map(_same, alone, next(iter(loader))))


def test_ranks_split_the_batch(cfg) -> None:
    whole = _take(cfg, 3)
    parts = [_take(cfg, 3, rank=rank, world_size=2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        assert all(map(_same, batch[0::2], parts[0][step]))
        assert all(map(_same, batch[1::2], parts[1][step]))


def test_batch_must_fit_the_processes(cfg) -> None:
    with pytest.raises(ConfigError, match=r"IMS_PER_BATCH 4 must be a positive multiple .* 3"):
        build_train_loader(cfg, rank=0, world_size=3)


def test_lists_of_data_sets(cfg) -> None:
    name = cfg.DATASETS.TRAIN[0]
    cfg.DATASETS.TRAIN = (name, name)
    assert len(_take(cfg, 1)[0]) == 4
    cfg.DATASETS.DATASET_RATIO = [1.0, 2.0, 3.0]
    with pytest.raises(ConfigError, match=r"DATASET_RATIO has 3 entries, but DATASETS.TRAIN has 2"):
        build_train_loader(cfg)
    cfg.DATASETS.DATASET_RATIO = [0.0]
    with pytest.raises(ConfigError, match=r"DATASETS.DATASET_RATIO: ratios must not be"):
        build_train_loader(cfg)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ConfigError, match=r"DATASETS.TRAIN is empty"):
        build_train_loader(cfg)


def test_images_with_mapped_classes_beside_videos(cfg) -> None:
    name = cfg.DATASETS.TRAIN[0]
    cfg.DATASETS.TRAIN = (name, name)
    cfg.DATASETS.DATASET_TYPE = ["image_instance", "video_instance"]
    cfg.DATASETS.DATASET_NEED_MAP = [True, False]
    batches = _take(cfg, 12)
    lengths = {sample["length"] for batch in batches for sample in batch}
    assert lengths & {1, 6}
    assert max(lengths) >= 16
    assert {label for b in batches for s in b for label in s["instances"].labels.tolist()} == {0, 1}


def test_videos_without_objects(cfg, small_set) -> None:
    def one_empty(content: dict[str, Any]) -> None:
        content["annotations"] = [a for a in content["annotations"] if a["video_id"] == 4]

    small_set.write(one_empty)
    assert {s["video_id"] for batch in _take(cfg, 4) for s in batch} == {4}
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    # The empty video is drawn, shows nothing, and another one is taken.
    assert {s["video_id"] for batch in _take(cfg, 4) for s in batch} == {4}
    small_set.write(lambda content: content.update(annotations=[]))
    with pytest.raises(DataError, match="none of the 2 videos has an object"):
        build_train_loader(cfg)
    small_set.write(lambda content: content.pop("annotations"))
    with pytest.raises(DataError, match="has no annotations: it is a test split"):
        build_train_loader(cfg)


def test_rarely_visible_object_is_found_with_a_warning(cfg, small_set, caplog) -> None:
    def change(content: dict[str, Any]) -> None:
        for track in content["annotations"]:
            rest = len(track["segmentations"]) - 1
            track["segmentations"] = [track["segmentations"][0]] + [None] * rest
        content["annotations"] = content["annotations"][:2]
        content["videos"][0]["file_names"] *= 5
        content["videos"][0]["length"] = 30
        for track in content["annotations"]:
            track["segmentations"] += [None] * 24
            track.pop("bboxes", None)

    small_set.write(change)
    assert all(s["frame_indices"][0] == 0 for batch in _take(cfg, 2) for s in batch)
    warning = "3 clips in a row teach nothing (no object is visible: 3), the first of video 4"
    assert warning in caplog.text


def test_rejected_clips_are_counted_by_reason(cfg, small_set) -> None:
    cfg.DATALOADER.MAX_ATTEMPTS = 10
    loader = build_train_loader(cfg)
    answers = itertools.cycle([Rejected("no detections")] * 2 + [Rejected("no label")])
    calls = []

    def reject(record: Any, rng: Any) -> Rejected:
        calls.append(record["video_id"])
        return next(answers)

    loader.source.mappers[0] = reject
    with pytest.raises(DataError) as caught:
        next(iter(loader))
    assert str(caught.value).startswith(
        "10 clips in a row teach nothing (no detections: 7, no label: 3), the first of video "
    )
    assert str(caught.value).endswith("or raise DATALOADER.MAX_ATTEMPTS (10)")
    assert len(set(calls[:10])) > 1  # a video that is always empty does not use them all up
    assert len(calls) == 10 * cfg.SOLVER.IMS_PER_BATCH


@pytest.mark.parametrize("workers", [0, 1])
def test_failure_names_the_file_in_one_sentence(cfg, small_set, workers: int) -> None:
    loader = build_train_loader(cfg)
    loader.num_workers = workers
    for t in range(1, 6):  # lost while the run goes on
        small_set.frame(0, t).unlink()
    with pytest.raises(DataError, match=r"v4/00\d.png is missing") as caught:
        list(itertools.islice(loader, 20))
    assert "\n" not in str(caught.value)


class _Suicidal:
    def __call__(self, record: Any, rng: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_death_of_a_worker_is_told(cfg, monkeypatch) -> None:
    monkeypatch.setattr("vidseg.data.sample_loader._LOOK_SECONDS", 0.5)
    loader = build_train_loader(cfg)
    loader.num_workers = 1
    loader.source.mappers[0] = _Suicidal()
    with pytest.raises(WorkerError, match=r"process died: video .*lower DATALOADER.NUM_WORK"):
        next(iter(loader))


def test_unexpected_error_names_the_video(cfg) -> None:
    loader = build_train_loader(cfg)
    loader.source.mappers[0] = lambda record, rng: {}["x"]
    with pytest.raises(DataError, match=r"video \d of .* cannot be mapped: KeyError: 'x'"):
        next(iter(loader))


def test_generated_video_is_named_without_a_file(cfg) -> None:
    loader = build_train_loader(cfg)
    loader.source.pools[0] = PackedRecords([{"video_id": "g7", "file_names": []}] * 2)
    loader.source.mappers[0] = lambda record, rng: {}["x"]
    with pytest.raises(DataError, match=r"^video g7 cannot be mapped: KeyError: 'x'"):
        next(iter(loader))


def test_test_loader_gives_videos_in_order(cfg) -> None:
    loader = build_test_loader(cfg, cfg.DATASETS.TEST[0])
    assert len(loader) == 2
    batches = list(loader)
    assert [[sample["video_id"] for sample in batch] for batch in batches] == [[2], [4]]
    assert batches[1][0]["frames"].shape == (6, 3, 24, 32)
    part = build_test_loader(cfg, cfg.DATASETS.TEST[0], rank=1, world_size=2)
    assert [sample["video_id"] for (sample,) in part] == [4]
    with pytest.raises(TypeError, match="endless"):
        len(build_train_loader(cfg))


def test_number_of_classes(cfg) -> None:
    name = cfg.DATASETS.TRAIN[0]
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 1
    with pytest.raises(
        DataError, match=r"small.*has 2 classes, .* has 1; set MODEL.SEM_SEG_HEAD.NU"
    ):
        check_num_classes(cfg, name)
    with pytest.raises(DataError, match="has 2 classes"):
        build_train_loader(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    check_num_classes(cfg, name)
    assert DatasetCatalog.resolve(name) in DatasetCatalog
