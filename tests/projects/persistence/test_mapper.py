"""Records of clips to token samples, on the way through data sets, cache and loaders."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.data import DatasetCatalog, Records, build_test_loader, build_train_loader
from vidseg.data.mappers import Rejected, build_mapper
from vidseg.data.synthetic import generate_split
from vidseg.errors import ConfigError, DataError
from vidseg.projects.persistence import add_config, detection_cache
from vidseg.projects.persistence.clips import PersistenceClips
from vidseg.projects.persistence.detection_cache import cache_key
from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.ground_truth import match_detections, noisy_labels
from vidseg.projects.persistence.leak_probe import probe_decisions, probe_features

RNG = np.random.default_rng(0)


@pytest.fixture
def cfg(tmp_path, monkeypatch) -> CfgNode:
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))
    cfg = get_cfg()
    if "PERSISTENCE" not in cfg.MODEL:
        add_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("persistence_same_train",), ("persistence_same_test",)
    cfg.DATASETS.DATASET_TYPE = cfg.DATASETS.DATASET_TYPE_TEST = ["object_tokens"]
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def mapper_of(cfg: CfgNode, *, is_train: bool = False) -> Any:
    return build_mapper(cfg, "object_tokens", is_train=is_train)


def record(name: str, index: int = 0) -> dict[str, Any]:
    return DatasetCatalog.get(name)[index]


def files_of(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.npz"))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Detections):
        return equal(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize(
    ("name", "count", "split", "size"),
    [
        ("persistence_coloured_train", 4000, "train", 64),
        ("persistence_conflict_val", 300, "val", 64),
        ("persistence_longgap_128_test", 400, "test", 128),
        ("persistence_same_train_400", 400, "train", 64),
        ("persistence_same_128_train_400", 400, "train", 128),
    ],
)
def test_data_sets(name: str, count: int, split: str, size: int) -> None:
    records, metadata = DatasetCatalog.get(name), DatasetCatalog.metadata(name)
    assert len(records) == len({found["video_id"] for found in records}) == count
    assert metadata.classes == records.classes == ["transient", "persistent"]
    assert (metadata.evaluator, metadata.item) == ("object_persistence", "clip")
    last = records[-1]
    assert (last["split"], last["index"], last["height"], last["length"]) == (
        split, count - 1, size, 16,
    )  # fmt: skip


def test_part_of_training_is_what_training_sees() -> None:
    whole = DatasetCatalog.get("persistence_random_train")
    part = DatasetCatalog.get("persistence_random_train_400")
    assert list(part) == list(whole[:400])


def test_sample_of_a_test_clip(cfg) -> None:
    found = record("persistence_same_test", 3)
    sample = mapper_of(cfg)(found, RNG)
    clip = PersistenceClips("same", "test")[3]
    count, objects = len(sample["detections"]), len(clip.objects)
    assert count > 20
    assert torch.equal(sample["frames"], clip.frames)
    assert sample["patches"].shape == (count, 3, 14, 14)
    assert sample["video_id"] == "same_test_0003"
    assert sample["frame_indices"] == range(16)
    assert sample["objects"]["presence"].shape == (objects, 16)
    assert sample["num_visible"] == clip.objects.visible.sum()
    for name in ("labels", "object_ids", "tracks"):
        assert sample[name].shape == (count,)
        assert sample[name].dtype == torch.int64
    known = sample["object_ids"] >= 0
    assert known.float().mean() > 0.9
    ids = sample["object_ids"]
    assert torch.equal(sample["labels"][known], sample["objects"]["labels"][ids[known]])
    assert torch.equal(sample["durations"][known], sample["objects"]["durations"][ids[known]])
    assert (sample["labels"][~known] == -1).all()
    assert (sample["durations"][~known] == -1).all()
    assert (sample["detections"].frame.diff() >= 0).all()


def test_tokens_without_an_object(cfg) -> None:
    samples = [mapper_of(cfg)(record("persistence_distractor_test", i), RNG) for i in range(4)]
    unknown = torch.cat([sample["labels"] for sample in samples]) == -1
    assert unknown.any()
    for sample in samples:
        nobody = sample["object_ids"] == -1
        assert torch.equal(sample["labels"] == -1, nobody)
        assert torch.equal(sample["durations"] == -1, nobody)


def test_matching_takes_the_nearest_visible_object(cfg) -> None:
    clip = PersistenceClips("same", "val")[1]
    objects = clip.objects
    item, frame = (int(found[0]) for found in np.nonzero(objects.visible))
    y, x = objects.centers[item, frame]
    radius = objects.radii[item, frame]
    shifts = np.array([0.0, 0.9, -1.1]) * radius
    count = len(shifts)
    rest = torch.ones(count)
    found = Detections(
        torch.full((count,), frame),
        torch.from_numpy(y + shifts).float(),
        torch.full((count,), float(x)),
        *[rest] * 5,
        torch.ones(count, 3),
        num_frames=16,
        size=(64, 64),
    )
    objects.visible[:, frame] = np.arange(len(objects)) == item
    assert match_detections(found, clip).tolist() == [item, item, -1]
    objects.visible[:, frame] = False
    assert match_detections(found, clip).tolist() == [-1] * 3
    assert len(match_detections(found.select(torch.zeros(3, dtype=torch.bool)), clip)) == 0


def test_detector_finds_the_objects_and_single_tokens_tell_nothing(cfg) -> None:
    mapper, columns = mapper_of(cfg), []
    found = visible = wrong = 0
    for number, each in enumerate(DatasetCatalog.get("persistence_same_test")[:40]):
        sample = mapper(each, RNG)
        tokens, ids = sample["detections"], sample["object_ids"]
        found += len({*zip(ids[ids >= 0].tolist(), tokens.frame[ids >= 0].tolist(), strict=True)})
        visible += sample["num_visible"]
        wrong += int((ids < 0).sum())
        measured = [tokens.y, tokens.x, tokens.radius, tokens.response, *tokens.color.T]
        labels = sample["labels"].float()
        columns.append(torch.stack([labels, tokens.frame, labels * 0 + number, *measured], 1))
    assert found / visible >= 0.94
    assert wrong / (40 * 16) <= 0.01
    table = torch.cat(columns).double().numpy()
    labels, frames, clips = table[:, :3].T.astype(np.int64)
    features = probe_features(table[:, 3:], frames, np.full(len(frames), 16))
    right = probe_decisions(features, labels, clips) == labels
    # A bar of 55 on 400 clips; 40 of them leave some chance.
    assert 100 * (right[labels == 1].mean() + right[labels == 0].mean()) / 2 <= 58


def test_training_sample_is_a_function_of_record_and_draw(cfg) -> None:
    mapper, found = mapper_of(cfg, is_train=True), record("persistence_same_train", 5)
    one, same, other = (mapper(found, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert "frames" not in one
    assert equal(one, same)
    assert not equal(one, other)
    assert equal(mapper_of(cfg, is_train=True)(found, np.random.default_rng(1)), one)
    cfg.INPUT.PERSISTENCE.CACHE = False
    assert equal(mapper_of(cfg, is_train=True)(found, np.random.default_rng(1)), one)


def test_cache_is_used_once_per_setting(cfg, tmp_path, monkeypatch) -> None:
    found = record("persistence_same_test", 2)
    mapper_of(cfg)(found, RNG)
    (path,) = files_of(tmp_path / "cache")
    assert path.parts[-2:] == ("test", "000002.npz")
    with monkeypatch.context() as patch:
        patch.setattr("vidseg.projects.persistence.detector.BlobDetector.__call__", None)
        mapper_of(cfg)(found, RNG)  # of another mapper, without detecting
    for key, value in (
        ("MODEL.PERSISTENCE.DETECTOR.THRESHOLD", 0.2),
        ("MODEL.PERSISTENCE.PATCH", 12),
        ("MODEL.PERSISTENCE.PATCH_SCALE", True),
        ("MODEL.PERSISTENCE.TRACKER.GATE", 4.0),
        ("INPUT.PERSISTENCE.MIN_TRANSIENT", 1),
    ):
        before = len(files_of(tmp_path / "cache"))
        cfg.merge_from_list([key, value])
        mapper_of(cfg)(found, RNG)
        assert len(files_of(tmp_path / "cache")) == before + 1, key


def test_damaged_cache_is_made_again(cfg, tmp_path, caplog) -> None:
    found = record("persistence_same_test", 2)
    first = mapper_of(cfg)(found, RNG)
    (path,) = files_of(tmp_path / "cache")
    whole = path.read_bytes()
    half = len(whole) // 2
    swapped = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    for damage in (whole[:half], b"", b"\x80\x04.", swapped):
        path.write_bytes(damage)
        assert equal(mapper_of(cfg)(found, RNG), first)
        assert path.read_bytes() == whole
    assert "is damaged and made again" in caplog.text


def test_cache_that_cannot_be_written(cfg, tmp_path, caplog) -> None:
    (tmp_path / "cache").write_text("a file")
    mapper = mapper_of(cfg)
    for index in range(2):
        assert len(mapper(record("persistence_same_test", index), RNG)["detections"])
    assert caplog.text.count("detections are not kept") == 1


def test_key_depends_on_every_setting() -> None:
    assert cache_key({"a": 1}) != cache_key({"a": 2})
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})


def test_key_depends_on_all_code_that_makes_the_content() -> None:
    """The list of modules is what the mapper imports, but for what happens after the cache."""
    folder = Path(detection_cache.__file__).parent
    due, reached = ["mapper"], {"augmentation", "config"}
    while due:
        name = due.pop()
        reached.add(name)
        tree = ast.parse((folder / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                due += [node.module] if node.module not in reached else []
    assert reached - {"augmentation", "config"} == set(detection_cache.SOURCES)


def test_label_noise_is_of_objects_and_stays(cfg) -> None:
    cfg.INPUT.PERSISTENCE.LABEL_NOISE = 1.0
    found = record("persistence_same_train", 7)
    clean = mapper_of(cfg)(found, RNG)["objects"]["labels"]
    trained = mapper_of(cfg, is_train=True)(found, RNG)
    assert torch.equal(trained["objects"]["labels"], 1 - clean)
    known = trained["object_ids"] >= 0
    ids = trained["object_ids"][known]
    assert torch.equal(trained["labels"][known], 1 - clean[ids])
    clips, zeros = PersistenceClips("same", "train"), np.zeros(6, dtype=np.int64)
    drawn = np.stack([noisy_labels(zeros, clips, index, 0.2) for index in range(500)])
    assert drawn.mean() == pytest.approx(0.2, abs=0.03)
    assert np.array_equal(drawn[9], noisy_labels(zeros, clips, 9, 0.2))


def test_clips_that_teach_nothing_are_rejected(cfg) -> None:
    found = record("persistence_same_train", 0)
    cfg.INPUT.PERSISTENCE.TOKEN_DROPOUT = 1.0
    answer = mapper_of(cfg, is_train=True)(found, RNG)
    assert answer == Rejected("no labelled token")
    cfg.INPUT.PERSISTENCE.TOKEN_DROPOUT = 0.0
    cfg.MODEL.PERSISTENCE.DETECTOR.THRESHOLD = 10.0
    assert mapper_of(cfg, is_train=True)(found, RNG) == Rejected("no detections")
    empty = mapper_of(cfg)(found, RNG)
    assert len(empty["detections"]) == len(empty["labels"]) == 0
    assert empty["patches"].shape == (0, 3, 14, 14)


def test_loaders_with_workers(cfg) -> None:
    alone = list(itertools.islice(build_train_loader(cfg), 2))
    loader = build_train_loader(cfg)
    loader.num_workers = 2
    for ours, theirs in zip(alone, itertools.islice(loader, 2), strict=True):
        assert all(map(equal, ours, theirs))
    (first,) = next(iter(build_test_loader(cfg, "persistence_same_test")))
    assert first["video_id"] == "same_test_0000"


def test_ordinary_videos_have_no_labels(cfg, tmp_path) -> None:
    cfg.INPUT.MIN_SIZE_TEST = 0
    generate_split(tmp_path / "videos", "easy", seed=1, num_videos=1, length=3)
    (found,) = DatasetCatalog.get(str(tmp_path / "videos" / "instances.json"))
    sample = mapper_of(cfg)(found, RNG)
    assert sample["frames"].shape[0] == sample["length"] == found["length"]
    assert sample["file_names"] == list(found["file_names"])
    assert sample["detections"].size == tuple(sample["frames"].shape[-2:])
    assert (sample["labels"] == -1).all()
    assert sample["objects"]["presence"].shape == (0, found["length"])
    assert sample["num_visible"] == 0
    mapper, name = mapper_of(cfg, is_train=True), "my_videos"
    with pytest.raises(DataError, match=f"{name} does not say which objects are persistent"):
        mapper.select(Records([found]), name, drop_empty=True)
    generated = DatasetCatalog.get("persistence_same_val")
    assert len(mapper.select(generated, "persistence_same_val", drop_empty=True)) == 300


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.PERSISTENCE.LABEL_NOISE", 1.5),
        ("INPUT.PERSISTENCE.MIN_TRANSIENT", 6),
        ("MODEL.PERSISTENCE.PATCH", 0),
    ],
)
def test_numbers_out_of_range(cfg, key: str, value: float) -> None:
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=f"{key} is {value}"):
        mapper_of(cfg, is_train=True)
