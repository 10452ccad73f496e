"""Records to clips of frames, on the way through data sets, the kept frames and loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg import rle
from vidseg.config import CfgNode, get_cfg
from vidseg.data import DatasetCatalog, build_test_loader, build_train_loader
from vidseg.data.mappers import build_mapper
from vidseg.errors import ConfigError, DataError
from vidseg.projects.slot_bert import add_config
from vidseg.projects.slot_bert.clip_reading import FrameCache, reduce_frames, reduce_labels
from vidseg.projects.slot_bert.moving_shapes import MovingShapes
from vidseg.video.images import save_image
from vidseg.video.io import VideoWriter

RNG = np.random.default_rng(0)


@pytest.fixture
def cfg(tmp_path, monkeypatch) -> CfgNode:
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))
    cfg = get_cfg()
    if "SLOT_BERT" not in cfg.MODEL:
        add_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("moving_shapes_train",), ("moving_shapes_val",)
    cfg.DATASETS.DATASET_TYPE = cfg.DATASETS.DATASET_TYPE_TEST = ["slot_clips"]
    cfg.INPUT.SLOT_BERT.SIZE = [64, 64]
    cfg.INPUT.SLOT_BERT.NUM_FRAMES = 4
    cfg.INPUT.SLOT_BERT.FLIP = 0.0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def mapper_of(cfg: CfgNode, *, is_train: bool = False) -> Any:
    return build_mapper(cfg, "slot_clips", is_train=is_train)


def record(name: str, index: int = 0) -> dict[str, Any]:
    return DatasetCatalog.get(name)[index]


def test_training_clips_are_cut_out_of_the_drawn_ones(cfg) -> None:
    mapper = mapper_of(cfg, is_train=True)
    whole = MovingShapes("train").clip(3).frames
    starts = set()
    for _ in range(10):
        sample = mapper(record("moving_shapes_train", 3), RNG)
        indices = sample["frame_indices"]
        assert len(indices) == 4
        assert sample["length"] == 24
        starts.add(indices.start)
        expected = reduce_frames(whole[indices.start : indices.stop], (64, 64))
        assert sample["frames"].shape == (4, 3, 64, 64)
        assert (sample["frames"].int() - expected.int()).abs().max() <= 1
    assert len(starts) > 3
    assert not {"label_maps", "hidden", "dropped"} & set(sample)


def test_clips_are_mirrored_and_turned_upside_down(cfg) -> None:
    cfg.INPUT.SLOT_BERT.NUM_FRAMES = 24
    known = record("moving_shapes_train")
    plain = mapper_of(cfg, is_train=True)(known, RNG)["frames"]
    for key, axis in (("FLIP", 3), ("VERTICAL_FLIP", 2)):
        cfg.INPUT.SLOT_BERT.FLIP = cfg.INPUT.SLOT_BERT.VERTICAL_FLIP = 0.0
        cfg.INPUT.SLOT_BERT[key] = 1.0
        turned = mapper_of(cfg, is_train=True)(known, RNG)["frames"]
        assert torch.equal(turned, plain.flip(axis))
    cfg.INPUT.SLOT_BERT.VERTICAL_FLIP = 0.5
    mapper = mapper_of(cfg, is_train=True)
    seen = {bool(torch.equal(mapper(known, RNG)["frames"], plain)) for _ in range(20)}
    assert seen == {True, False}


def test_test_clips_are_whole_and_have_their_labels(cfg) -> None:
    sample = mapper_of(cfg)(record("moving_shapes_hidden_val", 1), RNG)
    clip = MovingShapes("hidden_val").clip(1)
    assert torch.equal(sample["frames"], reduce_frames(clip.frames, (64, 64)))
    assert sample["label_maps"].dtype == torch.int16
    assert torch.equal(sample["label_maps"], clip.label_maps[:, 1::2, 1::2])
    assert torch.equal(sample["dropped"], clip.dropped)
    assert sample["dropped"].any()
    assert torch.equal(sample["hidden"], clip.hidden)
    assert (sample["height"], sample["width"], sample["length"]) == (128, 128, 24)


def test_lengths_and_seeds_are_of_the_config(cfg) -> None:
    node = cfg.INPUT.SLOT_BERT.MOVING_SHAPES
    before = mapper_of(cfg)(record("moving_shapes_val"), RNG)["frames"]
    node.SEED, node.NUM_FRAMES, node.NUM_CLIPS = 5, 7, 700
    after = mapper_of(cfg)(record("moving_shapes_val"), RNG)["frames"]
    assert after.shape[0] == 7
    assert not torch.equal(before[:7], after)
    mapper = mapper_of(cfg, is_train=True)
    kept = mapper.select(
        DatasetCatalog.get("moving_shapes_train"), "moving_shapes_train", drop_empty=True
    )
    assert [item["index"] for item in kept] == list(range(700))
    assert max(mapper(kept[699], RNG)["frame_indices"]) < 7


def test_reducing_is_the_mean_of_what_a_pixel_covers() -> None:
    frames = torch.randint(0, 256, (2, 3, 24, 36), dtype=torch.uint8)
    for size in ((12, 18), (6, 6), (24, 36), (2, 3), (1, 1)):
        sides = (24 // size[0], 36 // size[1])
        blocks = frames.double().unfold(2, sides[0], sides[0]).unfold(3, sides[1], sides[1])
        expected = blocks.mean((-1, -2))
        assert (reduce_frames(frames, size).double() - expected).abs().max() <= 0.51
    assert reduce_frames(frames, (7, 5)).shape == (2, 3, 7, 5)
    assert reduce_frames(frames, (48, 72)).shape == (2, 3, 48, 72)
    labels = torch.arange(24).view(1, 24, 1).expand(1, 24, 36)
    assert reduce_labels(labels, (8, 36))[0, :, 0].tolist() == list(range(1, 24, 3))


@pytest.fixture
def videos(tmp_path) -> Path:
    """A folder of a video file and a folder of pictures, 12 and 5 frames of 40 x 60."""
    frames = np.zeros((12, 40, 60, 3), dtype=np.uint8)
    frames[..., 0] = 10 * np.arange(12)[:, None, None]
    folder = tmp_path / "videos"
    (folder / "b").mkdir(parents=True)
    with VideoWriter(folder / "a.mp4", fps=10) as writer:
        for frame in frames:
            writer.write(frame)
    from PIL import Image

    for number, frame in enumerate(frames[:5]):
        save_image(Image.fromarray(frame), folder / "b" / f"{number}.png")
    return folder


def test_any_folder_of_videos_is_trained_on(cfg, videos, tmp_path) -> None:
    cfg.INPUT.SLOT_BERT.SIZE = [20, 30]
    cfg.DATASETS.TRAIN = (str(videos),)
    loader = iter(build_train_loader(cfg))
    seen = {}
    for _ in range(6):
        for sample in next(loader):
            assert sample["frames"].shape == (4, 3, 20, 30)
            brightness = sample["frames"][:, 0].float().mean((1, 2))
            numbers = torch.tensor([10.0 * index for index in sample["frame_indices"]])
            assert (brightness - numbers).abs().max() < 6  # after lossy coding
            seen[sample["video_id"]] = sample["length"]
    assert seen == {"a": 12, "b": 5}
    kept = sorted((tmp_path / "cache" / FrameCache.folder_name).iterdir())
    assert [path.stat().st_size for path in kept] in ([12 * 1800, 5 * 1800], [5 * 1800, 12 * 1800])


def test_videos_without_labels_are_tested(cfg, videos) -> None:
    cfg.INPUT.SLOT_BERT.SIZE = [0, 0]
    cfg.DATASETS.TEST = (str(videos),)
    samples = [batch[0] for batch in build_test_loader(cfg, str(videos))]
    assert [tuple(sample["frames"].shape) for sample in samples] == [
        (12, 3, 40, 60),
        (5, 3, 40, 60),
    ]
    assert all(sample["label_maps"] is None for sample in samples)
    assert all(not sample["dropped"].any() for sample in samples)
    assert len(samples[1]["file_names"]) == 5


def test_kept_frames_are_renewed_with_the_video(cfg, videos, monkeypatch) -> None:
    mapper = mapper_of(cfg, is_train=True)
    still = DatasetCatalog.get(str(videos))[1]
    first = mapper(still, np.random.default_rng(1))["frames"]
    monkeypatch.setattr("vidseg.projects.slot_bert.clip_reading.read_image", None)
    assert torch.equal(mapper(still, np.random.default_rng(1))["frames"], first)  # not decoded
    monkeypatch.undo()
    from PIL import Image

    for path in still["file_names"]:
        save_image(Image.new("RGB", (60, 40), (0, 200, 0)), Path(path))
    renewed = mapper_of(cfg, is_train=True)(still, RNG)["frames"]
    assert (renewed[:, 1] == 200).all()


def test_damaged_kept_frames_are_made_again(cfg, videos, tmp_path) -> None:
    still = DatasetCatalog.get(str(videos))[1]
    first = mapper_of(cfg, is_train=True)(still, np.random.default_rng(1))["frames"]
    (path,) = (folder := tmp_path / "cache" / FrameCache.folder_name).iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    again = mapper_of(cfg, is_train=True)(still, np.random.default_rng(1))["frames"]
    assert torch.equal(first, again)
    assert [found.stat().st_size for found in folder.iterdir()] == [5 * 64 * 64 * 3]


def test_a_disk_that_cannot_be_written_only_costs_time(cfg, videos, tmp_path, caplog) -> None:
    still = DatasetCatalog.get(str(videos))[1]
    (tmp_path / "cache").write_text("a file where the folder should be")
    mapper = mapper_of(cfg, is_train=True)
    for _ in range(2):
        assert mapper(still, RNG)["frames"].shape == (4, 3, 64, 64)
    assert caplog.text.count("are not kept") == 1


def annotated(frames: Path, *, crowd: bool = False) -> dict[str, Any]:
    def item(key: int, top: int, *, iscrowd: int = 0) -> dict[str, Any]:
        mask = np.zeros((40, 60), dtype=bool)
        mask[top : top + 12, 10:30] = True
        return {"id": key, "segmentation": rle.to_text(rle.encode(mask)), "iscrowd": iscrowd}

    known = DatasetCatalog.get(str(frames))[1]
    objects = [[item(9, 4), item(4, 10)], [item(9, 4), item(4, 20, iscrowd=int(crowd))], [], [], []]
    return {**known, "annotations": objects}


def test_masks_become_label_maps(cfg, videos) -> None:
    cfg.INPUT.SLOT_BERT.SIZE = [20, 30]
    maps = mapper_of(cfg)(annotated(videos), RNG)["label_maps"]
    assert maps.shape == (5, 20, 30)
    assert maps.dtype == torch.int16
    assert maps[0, 2:11, 10].tolist() == [2, 2, 2, -1, -1, -1, 1, 1, 1]  # both: not counted
    assert maps[1].unique().tolist() == [0, 1, 2]
    assert not maps[2:].any()
    crowd = mapper_of(cfg)(annotated(videos, crowd=True), RNG)["label_maps"]
    assert crowd[1].unique().tolist() == [-1, 0, 2]


def test_a_broken_mask_is_named(cfg, videos) -> None:
    spoilt = annotated(videos)
    spoilt["annotations"][0][0]["segmentation"] = {"size": [9, 9], "counts": "nonsense"}
    with pytest.raises(DataError, match=r"video b .* mask of object 9 cannot be read"):
        mapper_of(cfg)(spoilt, RNG)


def test_a_missing_frame_is_named(cfg, videos) -> None:
    known = DatasetCatalog.get(str(videos))[1]
    Path(known["file_names"][2]).unlink()
    for is_train in (True, False):
        with pytest.raises(DataError, match=r"2\.png"):
            mapper_of(cfg, is_train=is_train)(known, RNG)


def test_all_sets_are_loaded(cfg) -> None:
    cfg.DATASETS.TRAIN = ("moving_shapes_train", "moving_shapes_hard_train")
    batch = next(iter(build_train_loader(cfg)))
    assert [tuple(sample["frames"].shape) for sample in batch] == [(4, 3, 64, 64)] * 2
    for name in ("moving_shapes_val", "moving_shapes_hard_val", "moving_shapes_hidden_val"):
        cfg.DATASETS.TEST = (name,)
        loader = build_test_loader(cfg, name)
        assert len(loader) == 64
        assert DatasetCatalog.metadata(name).evaluator == "slot_discovery"
        assert len(next(iter(loader))[0]["frames"]) == 24


def test_another_mapper_has_nothing_to_read(cfg) -> None:
    cfg.DATASETS.DATASET_TYPE_TEST = ["video_instance"]
    with pytest.raises(DataError, match=r"val_0000 .* no pictures.*DATASETS\.DATASET_TYPE"):
        next(iter(build_test_loader(cfg, "moving_shapes_val")))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SIZE", [64], "give height and width"),
        ("SIZE", [64, 0], "give height and width"),
        ("SIZE", [-1, 5], "give height and width"),
        ("NUM_FRAMES", 0, "positive"),
        ("FLIP", 1.5, r"FLIP is 1.5; give a chance"),
        ("VERTICAL_FLIP", -0.1, r"VERTICAL_FLIP is -0.1; give a chance"),
        ("MOVING_SHAPES.SEED", -1, "SEED is -1; give 0 or more"),
        ("MOVING_SHAPES.NUM_FRAMES", 0, "NUM_FRAMES is 0; give 1 or more"),
        ("MOVING_SHAPES.NUM_CLIPS", 0, "NUM_CLIPS is 0; give 1 or more"),
    ],
)
def test_bad_settings_name_their_key(cfg, key: str, value: Any, message: str) -> None:
    cfg.merge_from_list([f"INPUT.SLOT_BERT.{key}", value])
    with pytest.raises(ConfigError, match=message):
        mapper_of(cfg, is_train=True)
