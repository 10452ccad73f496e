"""Documents as samples: whole, cropped, masked, across files; and their loaders."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.data import DatasetCatalog, build_test_loader, build_train_loader, check_num_classes
from vidseg.data.loader import check_mappers
from vidseg.data.sequence_mapper import SequenceMapper
from vidseg.errors import ConfigError, DataError


def document(num_frames: int, first: int = 0) -> np.ndarray:
    """Frame t holds (t, t + 1000)."""
    time = np.arange(first, first + num_frames, dtype=np.float32)
    return np.stack([time, time + 1000], axis=1)


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    """A document of 12 frames in three files, one of them (D, T) like the others."""
    names = []
    for number, (first, count) in enumerate(((0, 5), (5, 1), (6, 6))):
        names.append(str(tmp_path / f"{number}.npy"))
        np.save(names[-1], document(count, first).T)
    return {
        "video_id": "a",
        "file_names": names,
        "lengths": [5, 1, 6],
        "length": 12,
        "feature_dim": 2,
        "json_file": "index.json",
        "transposed": True,
        "labels": list(range(12)),
        "topic": 3,
        "frame_rate": 50.0,
    }


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_whole_document(record: dict[str, Any]) -> None:
    sample = SequenceMapper()(record, rng())
    assert sample.keys() == {
        *("video_id", "length", "frame_indices", "file_names", "topic", "frame_rate"),
        *("labels", "features"),
    }
    assert torch.equal(sample["features"], torch.from_numpy(document(12)))
    assert sample["features"].dtype == torch.float32
    assert torch.equal(sample["labels"], torch.arange(12))
    assert (sample["topic"], sample["frame_rate"], sample["length"]) == (3, 50.0, 12)
    assert sample["frame_indices"] == range(12)


def test_crops_are_everywhere_and_all_of_one_piece(record: dict[str, Any]) -> None:
    mapper = SequenceMapper(num_frames=4)
    starts = set()
    for seed in range(100):
        sample = mapper(record, rng(seed))
        first = sample["frame_indices"][0]
        starts.add(first)
        assert torch.equal(sample["features"], torch.from_numpy(document(4, first)))
        assert sample["labels"].tolist() == list(sample["frame_indices"])
        assert sample["length"] == 12
    assert starts == set(range(9))


def test_short_documents_stay_whole(record: dict[str, Any]) -> None:
    for num_frames in (12, 13):
        assert len(SequenceMapper(num_frames=num_frames)(record, rng())["features"]) == 12
    with pytest.raises(ConfigError, match=r"INPUT\.SEQUENCE\.NUM_FRAMES is -1"):
        SequenceMapper(num_frames=-1)


def test_classes_of_another_set(record: dict[str, Any]) -> None:
    mapping = np.arange(12) - 1
    assert SequenceMapper(category_map=mapping)(record, rng())["labels"].tolist()[:3] == [-1, 0, 1]


def test_missing_frames_are_zero_whatever_the_file_holds(record: dict[str, Any]) -> None:
    spoilt = document(5)
    spoilt[3] = np.nan
    np.save(record["file_names"][0], spoilt.T)
    record["mask"] = [frame != 3 for frame in range(12)]
    sample = SequenceMapper()(record, rng())
    assert sample["mask"].dtype == torch.bool
    assert sample["mask"].tolist() == record["mask"]
    assert sample["features"][3].tolist() == [0, 0]
    assert torch.equal(sample["features"][4:], torch.from_numpy(document(8, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_first_bad_frame_is_told(value: float, record: dict[str, Any]) -> None:
    for path, frames in ((record["file_names"][0], [2]), (record["file_names"][2], [1, 4])):
        spoilt = np.load(path).astype(np.float64)
        spoilt[0, frames] = value
        np.save(path, spoilt)
    with pytest.raises(DataError, match=r"0\.npy holds NaN or infinity, first in frame 2 \(3 of"):
        SequenceMapper()(record, rng())
    np.save(record["file_names"][0], document(5).T)
    with pytest.raises(DataError, match=r"2\.npy holds NaN or infinity, first in frame 1 \(2 of"):
        SequenceMapper()(record, rng())


def test_infinities_that_cancel_are_found(record: dict[str, Any]) -> None:
    spoilt = document(5)
    spoilt[1] = np.inf, -np.inf
    np.save(record["file_names"][0], spoilt.T)
    with pytest.raises(DataError, match=r"first in frame 1 \(1 of"):
        SequenceMapper()(record, rng())


@pytest.mark.parametrize("shape", [(2, 3), (3, 5)])
def test_file_that_changed_since_is_told(shape: tuple[int, int], record: dict[str, Any]) -> None:
    np.save(record["file_names"][0], np.zeros(shape))
    with pytest.raises(DataError, match=r"0\.npy was changed since index\.json was read"):
        SequenceMapper()(record, rng())


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    for topic in ("x", "y"):
        for number in range(3):
            path = tmp_path / "set" / topic / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, document(10 + number, 100 * number))
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (str(tmp_path / "set"),)
    cfg.DATASETS.DATASET_TYPE = cfg.DATASETS.DATASET_TYPE_TEST = ["sequence"]
    cfg.INPUT.SEQUENCE.NUM_FRAMES = 4
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def test_training_takes_crops_of_all_documents(cfg: CfgNode) -> None:
    batches = list(itertools.islice(build_train_loader(cfg), 6))
    samples = [sample for batch in batches for sample in batch]
    assert {sample["video_id"] for sample in samples} == {f"{t}/{n}" for t in "xy" for n in "012"}
    assert {tuple(sample["features"].shape) for sample in samples} == {(4, 2)}
    again = list(itertools.islice(build_train_loader(cfg, start_iteration=4), 2))
    for ours, theirs in zip(batches[4] + batches[5], again[0] + again[1], strict=True):
        assert torch.equal(ours["features"], theirs["features"])


@pytest.mark.parametrize("workers", [0, 1])
def test_testing_takes_whole_documents_in_order(cfg: CfgNode, workers: int) -> None:
    cfg.DATALOADER.NUM_WORKERS = workers
    samples = [sample for (sample,) in build_test_loader(cfg, cfg.DATASETS.TEST[0])]
    assert [sample["video_id"] for sample in samples] == ["x/0", "x/1", "x/2", "y/0", "y/1", "y/2"]
    assert [len(sample["features"]) for sample in samples] == [10, 11, 12] * 2
    assert [sample["topic"] for sample in samples] == [0, 0, 0, 1, 1, 1]


def test_damaged_documents_are_left_out_of_a_test(cfg: CfgNode) -> None:
    folder = Path(cfg.DATASETS.TEST[0])
    (folder / "x" / "1.npy").write_bytes(b"nothing")
    spoilt = document(12)
    spoilt[7] = np.nan
    np.save(folder / "y" / "2.npy", spoilt)
    told: dict[str, str] = {}
    loader = build_test_loader(cfg, str(folder), on_damaged=told.__setitem__)
    assert [sample["video_id"] for (sample,) in loader] == ["x/0", "x/2", "y/0", "y/1"]
    assert told.keys() == {"x/1", "y/2"}
    with pytest.raises(DataError, match=r"1\.npy is no \.npy file"):
        build_train_loader(cfg)


def test_mapper_must_fit_the_records(cfg: CfgNode) -> None:
    check_mappers(cfg)
    cfg.DATASETS.DATASET_TYPE = ["video_instance"]
    message = r"DATASETS\.DATASET_TYPE: the mapper 'video_instance' reads frames, but .*'sequence'"
    for check in (check_mappers, build_train_loader):
        with pytest.raises(ConfigError, match=message):
            check(cfg)
    cfg.DATASETS.DATASET_TYPE_TEST = ["video_instance"]
    with pytest.raises(ConfigError, match=r"DATASET_TYPE_TEST: .* holds features"):
        build_test_loader(cfg, cfg.DATASETS.TEST[0])


def test_values_of_a_mapper_are_checked_before_anything_is_read(cfg: CfgNode) -> None:
    cfg.INPUT.SEQUENCE.NUM_FRAMES = -1
    with pytest.raises(ConfigError, match=r"INPUT\.SEQUENCE\.NUM_FRAMES is -1"):
        check_mappers(cfg)


def test_frames_are_not_read_as_features(cfg: CfgNode, small_set: Any) -> None:
    cfg.DATASETS.TRAIN = (str(small_set.path),)
    with pytest.raises(ConfigError, match=r"'sequence' reads features, but .*use e\.g\. 'video_"):
        check_mappers(cfg)


def test_number_of_classes_is_nothing_to_a_model_without_labels(cfg: CfgNode) -> None:
    name = cfg.DATASETS.TRAIN[0]
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    check_num_classes(cfg, name)
    assert DatasetCatalog.metadata(name).topics == ["x", "y"]
