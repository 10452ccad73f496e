"""The embedded data set: deterministic, exact, in YouTube-VIS format, written as a whole or not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from vidseg import rle
from vidseg.data import shapes_scene
from vidseg.data.catalog import DatasetCatalog
from vidseg.data.shapes_scene import (
    CLASSES,
    LEVELS,
    Scene,
    SceneObject,
    random_scene,
    render_frame,
)
from vidseg.data.synthetic import generate_split


def _still(label: int, x: float, y: float, radius: float, colour=(250, 0, 0)) -> SceneObject:
    return SceneObject(label, np.array([[x, y]]), np.array([radius]), np.zeros(1), colour)


def _scene(*objects: SceneObject) -> Scene:
    background = np.zeros((60, 80, 3), dtype=np.uint8)
    return Scene(40, 60, background, np.zeros((1, 2), dtype=np.int64), objects)


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_mask_is_where_the_colour_is(label):
    image, masks, areas = render_frame(_scene(_still(label, 30, 20, 12)), 0)
    assert areas[0] == masks[0].sum() > 100
    assert np.array_equal(masks[0], image[..., 0] >= 125)


def test_disc_has_the_area_of_a_disc():
    _, masks, _ = render_frame(_scene(_still(0, 30, 20, 16)), 0)
    assert masks[0].sum() == pytest.approx(np.pi * (16 * 0.85) ** 2, rel=0.05)


def test_front_object_hides_the_one_behind():
    scene = _scene(_still(1, 28, 20, 12), _still(0, 34, 20, 10, (0, 0, 250)))
    _, masks, areas = render_frame(scene, 0)
    assert not (masks[0] & masks[1]).any()
    assert masks[1].sum() == areas[1]
    assert masks[0].sum() < areas[0]


def test_object_outside_the_frame_has_no_mask():
    _, masks, areas = render_frame(_scene(_still(0, -30, 20, 12)), 0)
    assert not masks.any()
    assert areas[0] == 0


@pytest.mark.parametrize("level", LEVELS)
def test_same_seed_gives_the_same_scene(level):
    frames = []
    for _ in range(2):
        scene = random_scene(np.random.default_rng(5), level, height=48, width=64, length=3)
        frames.append([render_frame(scene, t) for t in range(3)])
    for first, second in zip(*frames, strict=True):
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])


def test_unknown_level_is_refused():
    with pytest.raises(ValueError, match="easy, standard, hard"):
        random_scene(np.random.default_rng(0), "medium", height=48, width=64, length=1)


def test_split_on_disk_describes_its_frames(tmp_path):
    generate_split(tmp_path / "train", "standard", seed=9, num_videos=3, length=4)
    content = json.loads((tmp_path / "train" / "instances.json").read_text())
    assert [category["name"] for category in content["categories"]] == list(CLASSES)
    assert len(content["videos"]) == 3
    for video in content["videos"]:
        for name in video["file_names"]:
            with Image.open(tmp_path / "train" / "JPEGImages" / name) as image:
                assert image.size == (video["width"], video["height"])
    for track in content["annotations"]:
        for segmentation, area, box in zip(
            track["segmentations"], track["areas"], track["bboxes"], strict=True
        ):
            assert (segmentation is None) == (area is None) == (box is None)
            if segmentation is not None:
                mask = rle.decode(rle.from_segmentation(segmentation, 96, 128))
                assert mask.sum() == area
                x, y, width, height = box
                assert mask[y : y + height, x : x + width].sum() == area


def test_existing_split_is_left_alone(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    generate_split(folder, "easy", seed=1, num_videos=1, length=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert (folder / "mine.txt").read_text() == "keep"


def test_catalog_generates_on_first_use(tmp_path, monkeypatch):
    from vidseg.data import synthetic

    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path))
    small = synthetic._Split("valid", 2, 2, 3)
    monkeypatch.setitem(synthetic._SPLITS, "val", small)
    records = DatasetCatalog.get("shapes_vis_easy_val")
    assert [record["length"] for record in records] == [3, 3]
    assert DatasetCatalog.metadata("shapes_vis_easy_val").classes == list(CLASSES)


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.0, 0.1, 0.3)])
def test_colour_tells_the_class_as_often_as_asked(share, low, high):
    agree = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, "standard", height=48, width=64, length=1, colour_is_class=share)
        for item in scene.objects:
            off = np.abs(np.asarray(shapes_scene._PALETTE) - item.colour).max(axis=1)
            agree.append(int(off.argmin()) == item.label)
    assert low <= np.mean(agree) <= high


def test_easy_shows_no_class_twice():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, "easy", height=48, width=64, length=1)
        labels = [item.label for item in scene.objects]
        assert len(set(labels)) == len(labels)
