"""Samples of videos with frame labels: rates, crops, hidden columns, held out classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.projects.fact_clip.layout_ground import CLASSES, WIDTH, make_layout, write_lines
from vidseg.config import CfgNode, load_config
from vidseg.data import (
    DatasetCatalog,
    build_pass_loader,
    build_test_loader,
    build_train_loader,
    check_num_classes,
)
from vidseg.data.mappers import build_mapper
from vidseg.engine.data_checks import check_feature_dim
from vidseg.errors import ConfigError, DataError
from vidseg.projects.fact_clip import public_sets  # noqa: F401 (registers)
from vidseg.projects.fact_clip.mapper import IGNORED, ActionFrameMapper, sample_labels


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return make_layout(tmp_path / "salads")


def config(split: Path, *words: object) -> CfgNode:
    test = split.parent / "test.split1.bundle"
    words = (
        *("DATASETS.TRAIN", [str(split)], "DATASETS.TEST", [str(test)]),
        *("DATASETS.DATASET_TYPE", ["action_frames"], "DATALOADER.NUM_WORKERS", 0),
        *("DATASETS.DATASET_TYPE_TEST", ["action_frames"], "MODEL.META_ARCHITECTURE", "FACT"),
        *("SOLVER.IMS_PER_BATCH", 2, "SEED", 0, *words),
    )
    return load_config(None, words, ["fact_clip"])


@pytest.mark.parametrize("rate", [2, 3, 4, 7])
def test_majority_of_each_window_and_the_first_met_wins_a_tie(rate: int) -> None:
    generator = torch.Generator().manual_seed(rate)
    for length in (1, 2, rate - 1, rate, rate + 1, 29, 30):
        labels = torch.randint(-1, 3, (length,), generator=generator) % 4 - 1  # -1 as well
        windows = [labels[i : i + rate].tolist() for i in range(0, length, rate)]
        expected = [Counter(window).most_common(1)[0][0] for window in windows]
        assert sample_labels(labels, rate).tolist() == expected
    assert sample_labels(torch.tensor([5, 2, 2, 5]), 4).tolist() == [5]


def test_every_frame(split: Path) -> None:
    record = DatasetCatalog.get(f"{split}?frame_rate=15")[1]
    sample = ActionFrameMapper()(record, rng())
    assert sample["features"].shape == (21, WIDTH)
    assert sample["labels"].tolist() == sample["full_labels"].tolist() == record["labels"]
    assert (sample["length"], sample["frame_rate"]) == (21, 15.0)
    assert sample["frame_indices"] == range(21)
    assert "full_labels" not in ActionFrameMapper(is_train=True)(record, rng())


def test_every_fourth_frame(split: Path) -> None:
    record = DatasetCatalog.get(f"{split}?frame_rate=15")[1]
    whole = ActionFrameMapper()(record, rng())
    sample = ActionFrameMapper(sampling_rate=4)(record, rng())
    assert torch.equal(sample["features"], whole["features"][::4])
    assert sample["features"].is_contiguous()
    assert sample["labels"].tolist() == sample_labels(whole["labels"], 4).tolist()
    assert torch.equal(sample["full_labels"], whole["labels"])
    assert (sample["length"], sample["frame_rate"]) == (6, 3.75)
    assert sample["frame_indices"] == range(0, 21, 4)


def test_crops_count_sampled_frames(split: Path) -> None:
    record = DatasetCatalog.get(str(split))[2]
    sample = ActionFrameMapper(sampling_rate=2, num_frames=5, is_train=True)(record, rng())
    start = sample["frame_indices"].start
    assert start > 0
    assert sample["frame_indices"] == range(start, start + 10, 2)
    expected = np.load(record["file_names"][0])[start : start + 10 : 2]
    assert sample["features"].numpy() == pytest.approx(expected)
    with pytest.raises(ConfigError, match="NUM_FRAMES is -3"):
        ActionFrameMapper(sampling_rate=2, num_frames=-3)


def test_video_without_labels(split: Path) -> None:
    record = {k: v for k, v in DatasetCatalog.get(str(split))[0].items() if k != "labels"}
    sample = ActionFrameMapper(sampling_rate=3)(record, rng())
    assert sample["features"].shape == (7, WIDTH)
    assert not {"labels", "full_labels"} & set(sample)


def test_classes_that_are_not_mapped_are_ignored(split: Path) -> None:
    record = DatasetCatalog.get(str(split))[0]
    mapping = np.array([0, -1, 2, 1])
    labels = ActionFrameMapper(category_map=mapping)(record, rng())["labels"]
    assert set(labels.tolist()) == {0, IGNORED, 2, 1}
    assert (labels == IGNORED).sum() == 8


def test_hidden_columns_are_zero_and_the_width_stays(split: Path) -> None:
    records = DatasetCatalog.get(str(split))
    for is_train in (False, True):
        mapper = ActionFrameMapper(drop_columns=(1, 4), is_train=is_train)
        features = mapper(records[0], rng())["features"]
        assert features.shape == (20, WIDTH)
        assert features.abs().amax(0).gt(0).tolist() == [True, False, True, True, False, True]
    mapper = ActionFrameMapper(drop_columns=(WIDTH,), is_train=True)
    says = r"FACT\.drop_columns names 6, but .*v0\.npy has 6 features per frame, numbered from 0 to"
    with pytest.raises(ConfigError, match=says):
        mapper.select(records, str(split), drop_empty=True)
    with pytest.raises(ConfigError, match=says):
        mapper(records[0], rng())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sr", 0), "sr is 0; give 1 to take every frame"),
        (("FACT.drop_columns", [-1]), r"FACT\.drop_columns is \[-1\]; numbers count from 0"),
    ],
)
def test_settings_out_of_range(split: Path, words: tuple[object, ...], says: str) -> None:
    cfg = config(split, *words)
    with pytest.raises(ConfigError, match=says):
        build_train_loader(cfg)
    with pytest.raises(ConfigError, match=says):
        build_test_loader(cfg, cfg.DATASETS.TEST[0])


def test_loaders_give_samples(split: Path) -> None:
    cfg = config(split, "sr", 2, "SOLVER.IMS_PER_BATCH", 3)
    batch = next(iter(build_train_loader(cfg)))
    assert sorted(len(sample["labels"]) for sample in batch) == [10, 11, 11]
    (sample,) = next(iter(build_test_loader(cfg, cfg.DATASETS.TEST[0])))
    assert (sample["video_id"], len(sample["full_labels"])) == ("v3", 23)


def test_training_needs_labels(split: Path) -> None:
    (split.parents[1] / "groundTruth").rename(split.parents[1] / "labels")
    cfg = config(split)
    with pytest.raises(DataError, match=r"split1\.bundle: the video 'v0' has no frame labels"):
        build_train_loader(cfg)
    (sample,) = next(iter(build_test_loader(cfg, cfg.DATASETS.TEST[0])))
    assert "labels" not in sample


def test_videos_with_held_out_classes_are_left_out(split: Path) -> None:
    truth = split.parents[1] / "groundTruth"
    for name in ("v0", "v1"):
        path = truth / f"{name}.txt"
        path.write_text(path.read_text().replace("stir_salad", "cut_tomato"))
    drop = ("MODEL.META_ARCHITECTURE", "FACT_CLIP", "CLIP.unseen_mode", "drop", "CLIP.unseen")
    cfg = config(split, *drop, ["stir_salad"], "SOLVER.IMS_PER_BATCH", 8)
    batch = next(iter(build_train_loader(cfg)))
    assert {sample["video_id"] for sample in batch} == {"v0", "v1"}
    with pytest.raises(DataError, match=r"every video shows a class of CLIP\.unseen.*use mask"):
        build_train_loader(config(split, *drop, ["pour_oil"]))
    masked = config(split, *drop[:3], "mask", "CLIP.unseen", ["pour_oil"])
    assert len(next(iter(build_train_loader(masked)))) == masked.SOLVER.IMS_PER_BATCH


@pytest.mark.parametrize("rate", [1, 2])
def test_labels_of_held_out_classes_do_not_reach_training(split: Path, rate: int) -> None:
    path = split.parents[1] / "groundTruth" / "v0.txt"
    names = path.read_text().split()
    keys = ("MODEL.META_ARCHITECTURE", "FACT_CLIP", "CLIP.unseen", ["pour_oil", "stir_salad"])
    keys = (*keys, "FACT.warp", 0.2, "FACT.segment_warp", 0.5, "sr", rate)

    def sample(between: int) -> dict[str, object]:
        """Trains with the border of two held out classes after so many of their eight frames."""
        borders = ["pour_oil"] * between + ["stir_salad"] * (8 - between)
        path.write_text("\n".join([*names[:8], *borders, *names[16:]]))
        cfg = config(split, *keys)
        mapper = build_mapper(cfg, "action_frames", is_train=True)
        records = mapper.select(DatasetCatalog.read(str(split)), str(split), drop_empty=True)
        return mapper(records[0], rng())

    first, second = sample(2), sample(5)
    assert set(first["labels"].tolist()) == {0, 1, IGNORED}
    for key in ("features", "labels"):
        assert torch.equal(first[key], second[key])


def test_classes_of_other_sets_are_compared_with_those_of_training(split: Path) -> None:
    cfg = config(split)
    check_num_classes(cfg, cfg.DATASETS.TEST[0])  # FACT.n_classes 0: as many as in training
    more = make_layout(split.parents[2] / "more")
    with (more.parents[1] / "mapping.txt").open("a") as file:
        file.write("4 peel_carrot\n")
    cfg.DATASETS.TEST = [str(more)]
    says = r"has 5 classes, but the model has 4; as many as .*salads.* has, on which it is trained"
    with pytest.raises(DataError, match=says):
        check_num_classes(cfg, str(more))
    cfg.FACT.n_classes = 3
    with pytest.raises(DataError, match=r"has 3; set FACT\.n_classes to 5"):
        check_num_classes(cfg, str(more))


def test_width_of_other_sets_is_compared_with_that_of_training(split: Path) -> None:
    cfg = config(split)
    check_feature_dim(cfg, cfg.DATASETS.TEST[0])  # FACT.input_dim 0: that of the training set
    wider = make_layout(split.parents[2] / "wider")
    for path in (wider.parents[1] / "features").iterdir():
        np.save(path, np.pad(np.load(path), ((0, 0), (0, 2))))
    says = r"has 8 features per frame, but the model takes 6; as many as .*salads.* has, on which"
    with pytest.raises(DataError, match=says):
        check_feature_dim(cfg, str(wider))
    cfg.FACT.input_dim = 7
    with pytest.raises(DataError, match=r"takes 7; set FACT\.input_dim to 8"):
        check_feature_dim(cfg, str(wider))


def test_class_names_are_those_of_the_mapping(split: Path) -> None:
    assert DatasetCatalog.metadata(str(split)).classes == list(CLASSES)


def test_a_pass_over_several_sets_has_the_classes_of_the_last(split: Path) -> None:
    other = make_layout(split.parents[2] / "other", num_videos=2)
    names = ("stir_salad", "peel_carrot", "cut_tomato", "pour_oil")  # one that the last set lacks
    for path, lines in (
        (other.parents[1] / "mapping.txt", [f"{i} {name}" for i, name in enumerate(names)]),
        (other.parents[1] / "groundTruth" / "v0.txt", [name for name in names for _ in range(5)]),
    ):
        write_lines(path, lines)
    cfg = config(split, "DATASETS.TRAIN", [str(other), str(split)])
    cfg.DATASETS.DATASET_NEED_MAP = [True, False]
    first = next(iter(build_pass_loader(cfg)))[0]["labels"]
    assert first.unique_consecutive().tolist() == [3, IGNORED, 1, 2]
