"""Reading, sampling and mapping against arrays recorded from the published data pipeline."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidseg.data.augmentation import ClipAugmentation, sample_frames
from vidseg.data.catalog import DatasetCatalog, Metadata
from vidseg.data.categories import category_map
from vidseg.data.clip_mapper import ClipMapper, PseudoClipMapper
from vidseg.data.transforms import shortest_edge_size
from vidseg.data.ytvis import load_ytvis_json

FOLDER = Path(__file__).parents[1] / "golden" / "dvis_daq_training"

# All category ids of COCO instances, in order.
COCO_IDS = [k for k in range(1, 91) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def _arrays(case: str, which: str) -> Any:
    return np.load(FOLDER / case / f"{which}.npz")


def _json(case: str, name: str) -> Any:
    return json.loads((FOLDER / case / name).read_text())


class _Fixed(ClipMapper):
    """Takes given frames instead of random ones."""

    def __init__(self, indices: list[int], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.indices = indices

    def __call__(self, record: Any, rng: np.random.Generator) -> Any:
        assert self.augmentation is not None
        return self._train_sample(record, self.indices, rng, self.augmentation)


@pytest.fixture
def video(tmp_path: Path) -> Any:
    case = "ytvis_loader_and_mapper"
    names = _json(case, "records.json")["file_names"]
    for name, frame in zip(names, _arrays(case, "inputs")["frames_rgb"], strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / name)
    return load_ytvis_json(FOLDER / case / "annotations_file.json", tmp_path)


def test_resize_rule() -> None:
    cases = _arrays("resize_rule", "inputs")["h_w_short_max"].tolist()
    wanted = _arrays("resize_rule", "outputs")["new_h_w"].tolist()
    assert [list(shortest_edge_size(*case)) for case in cases] == wanted


def test_records(video: Any, tmp_path: Path) -> None:
    wanted = _json("ytvis_loader_and_mapper", "records.json")
    (record,) = video
    assert [os.path.relpath(name, tmp_path) for name in record["file_names"]] == wanted[
        "file_names"
    ]
    for key in ("height", "width", "length", "video_id"):
        assert record[key] == wanted[key]
    assert video.classes == wanted["thing_classes"]
    assert {str(k): label for label, k in enumerate(video.category_ids)} == wanted["id_map"]
    assert len(record["annotations"]) == len(wanted["annotations"])
    for ours, theirs in zip(record["annotations"], wanted["annotations"], strict=True):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert all(a[key] == b[key] for key in ("bbox", "category_id", "id", "iscrowd"))


def test_training_clip(video: Any) -> None:
    wanted = _arrays("ytvis_loader_and_mapper", "outputs")
    augmentation = ClipAugmentation((60,), 80, flip="none")
    sample = _Fixed([0, 1, 3], augmentation)(video[0], np.random.default_rng(0))
    assert np.array_equal(sample["frames"], wanted["train/images"])
    assert (sample["height"], sample["width"], sample["length"]) == (40, 56, 4)
    assert sample["frame_indices"] == [0, 1, 3]
    instances = sample["instances"]
    classes = np.stack([wanted[f"train/frame{t}/classes"] for t in range(3)], axis=1)
    ids = np.stack([wanted[f"train/frame{t}/ids"] for t in range(3)], axis=1)
    assert np.array_equal(instances.labels, classes.max(axis=1))
    assert np.array_equal(instances.present, ids >= 0)
    for t in range(3):
        assert np.array_equal(instances.masks[:, t], wanted[f"train/frame{t}/masks"])


def test_test_video(video: Any) -> None:
    wanted = _arrays("ytvis_loader_and_mapper", "outputs")
    mapper = ClipMapper(None, test_size=50, max_test_size=80)
    sample = mapper(video[0], np.random.default_rng(0))
    assert sample is not None
    assert np.array_equal(sample["frames"], wanted["test/images"])
    assert "instances" not in sample


@pytest.mark.parametrize("target", ["ytvis_2019", "ytvis_2021", "ovis"])
def test_pseudo_clip(target: str, tmp_path: Path) -> None:
    wanted = _arrays("image_mapper", "outputs")
    Image.fromarray(_arrays("image_mapper", "inputs")["image_rgb"]).save(tmp_path / "a.png")
    objects = [
        {**item, "id": k} for k, item in enumerate(_json("image_mapper", "annotations.json"))
    ]
    record = {
        "file_names": [str(tmp_path / "a.png")],
        "height": 40,
        "width": 56,
        "length": 1,
        "video_id": 1,
        "annotations": [objects],
    }
    coco = Metadata("coco", [str(k) for k in COCO_IDS], COCO_IDS, family="coco")
    mapping = category_map(coco, DatasetCatalog.metadata(f"{target}_train"))
    augmentation = ClipAugmentation((50,), 80, flip="none")
    mapper = PseudoClipMapper(augmentation, num_frames=3, reach=20, category_map=mapping)
    sample = mapper(record, np.random.default_rng(0))
    assert sample is not None
    assert np.array_equal(sample["frames"], wanted["images"])
    assert 16 <= sample["length"] <= 48
    assert sample["frame_indices"] == sorted(sample["frame_indices"])
    for t in range(3):
        # Objects without a class in the target are left out: the published -1 breaks its loss.
        classes = wanted[f"{target}/frame{t}/classes"]
        assert sample["instances"].labels.tolist() == classes[classes >= 0].tolist()
        if f"{target}/frame{t}/masks" in wanted:
            masks = wanted[f"{target}/frame{t}/masks"].astype(bool)[classes >= 0]
            assert np.array_equal(sample["instances"].masks[:, t], masks)


def _is_possible(frames: list[int], length: int, num: int, reach: int, reverse: bool) -> bool:
    if len(frames) != num:
        return False
    if 2 * reach + 1 != num:
        distinct = length >= num
        within = any(all(abs(f - ref) <= reach for f in frames) for ref in frames)
        return frames == sorted(frames) and within and (not distinct or len(set(frames)) == num)
    ways = [frames, frames[::-1]] if reverse else [frames]
    for way in ways:
        if length <= num and way[:length] == list(range(length)):
            return True
        if length > num and way == list(range(way[0], way[0] + num)):
            return way[0] < length - num
    return False


def test_frame_sampling() -> None:
    for row in _json("frame_sampling", "samples.json"):
        settings = (row["length"], row["num"], row["range"])
        assert not isinstance(row["selected"], str)
        assert _is_possible(row["selected"], *settings, row["reverse"])
        for seed in range(20):
            rng = np.random.default_rng(seed)
            ours = sample_frames(*settings, rng, reverse=row["reverse"])
            assert _is_possible(ours, *settings, row["reverse"])
