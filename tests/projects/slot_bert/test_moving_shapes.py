from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch

from vidseg.errors import UserError
from vidseg.projects.slot_bert.moving_shapes import SPLITS, MovingShapes
from vidseg.projects.slot_bert.shape_rendering import render
from vidseg.projects.slot_bert.shape_scene import (
    CANVAS,
    PATTERNS,
    SHAPES,
    Background,
    MovingShape,
    Scene,
    draw_scene,
    follow_path,
)

BACKGROUND = Background(
    color=np.array([0.2, 0.4, 0.6]),
    frequencies=np.array([[0.0, 2 * np.pi * 4 / CANVAS]]),  # four periods from left to right
    phases=np.array([0.0]),
    amplitudes=np.array([[0.1, 0.05, 0.0]]),
    pan=np.array([0.0, 0.5]),
)


def thing(**changes: object) -> MovingShape:
    settings = {
        "shape": "disc",
        "radius": 20.0,
        "color": np.array([0.9, 0.5, 0.1]),
        "pattern": "none",
        "frequency": 5.0,
        "amplitude": 0.15,
        "centers": np.full((3, 2), 63.5),
        "angles": np.zeros(3),
    }
    return MovingShape(**{**settings, **changes})


def test_a_clip_is_a_function_of_its_name() -> None:
    shapes = MovingShapes("val")
    shapes.clip(3)
    first, again = shapes.clip(7), MovingShapes("val").clip(7)
    assert first.frames.dtype == torch.uint8
    assert first.frames.shape == (24, 3, 128, 128)
    assert first.label_maps.dtype == torch.int16
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.label_maps, again.label_maps)
    others = [MovingShapes(split) for split in SPLITS if split != "val"]
    for other in (*others, MovingShapes("val", seed=1)):
        assert not torch.equal(first.frames, other.clip(7).frames)


def test_what_a_seed_means_stays() -> None:
    """A change here makes results incomparable: it needs another version of the clips."""
    scene = MovingShapes("val").scene(3)
    found = [(item.shape, item.pattern, round(item.radius, 2)) for item in scene.objects]
    assert found == [
        ("cross", "stripes", 15.29),
        ("triangle", "egg_box", 21.9),
        ("disc", "stripes", 17.78),
        ("cross", "stripes", 18.33),
    ]
    areas = np.bincount(MovingShapes("val").clip(3).label_maps.numpy().ravel())
    assert areas == pytest.approx([326637, 12523, 12286, 23831, 17939], rel=1e-3)


def test_frames_are_drawn_alone_as_in_the_whole_clip() -> None:
    shapes = MovingShapes("hidden_val")
    whole, part = shapes.clip(2), shapes.clip(2, frames=[5, 20, 6])
    assert torch.equal(part.label_maps, whole.label_maps[[5, 20, 6]])
    assert torch.equal(part.dropped, whole.dropped[[5, 20, 6]])
    # Products of matrices of other sizes may round to the next grey level.
    difference = part.frames.int() - whole.frames[[5, 20, 6]].int()
    assert difference.abs().max() <= 1


def test_no_clip_occurs_twice() -> None:
    digests = {
        hashlib.sha256(MovingShapes(split).clip(index, [0]).frames.numpy().tobytes()).digest()
        for split in SPLITS
        for index in range(10)
    }
    assert len(digests) == 10 * len(SPLITS)


def test_scenes_are_of_the_stated_ranges() -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, num_frames=24, amplitude=0.15) for _ in range(300)]
    assert {len(scene.objects) for scene in scenes} == {3, 4, 5, 6}
    items = list(itertools.chain.from_iterable(scene.objects for scene in scenes))
    assert {item.shape for item in items} == set(SHAPES)
    assert {item.pattern for item in items} == set(PATTERNS)
    radii = np.array([item.radius for item in items]) / CANVAS
    assert 0.10 <= radii.min() < 0.11
    assert 0.18 < radii.max() <= 0.19
    colors = np.array([item.color for item in items])
    values = colors.max(1)
    assert values.min() >= 0.6
    assert ((values - colors.min(1)) / values).min() >= 0.6 - 1e-9
    speeds = [np.linalg.norm(np.diff(item.centers[:3], axis=0), axis=1).max() for item in items]
    assert min(speeds) >= 0.5
    assert max(speeds) <= 2.5 + 1e-9
    grounds = np.array([scene.background.color for scene in scenes])
    assert grounds.max(1).min() >= 0.25
    assert grounds.max(1).max() <= 0.65
    pans = np.abs([scene.background.pan for scene in scenes])
    assert 0.4 < pans.max() <= 0.5
    for item in items:
        assert item.centers.min() >= item.radius / 2 - 1e-9
        assert item.centers.max() <= CANVAS - 1 - item.radius / 2 + 1e-9


def test_paths_bounce_off_the_walls_both_ways_in_time() -> None:
    frames = np.arange(-100, 101)
    path = follow_path(np.array([60.0, 30.0]), np.array([2.0, -1.0]), frames, margin=10)
    assert path[100].tolist() == [60, 30]
    assert path[101].tolist() == [62, 29]
    assert path[100 + 30].tolist() == [117 - 3, 10 + 10]  # both walls were met
    steps = np.abs(np.diff(path, axis=0))
    assert (steps <= [2 + 1e-9, 1 + 1e-9]).all()
    assert path.min() >= 10
    assert path.max() <= 117


def test_background_is_the_stated_wave_and_pans() -> None:
    scene = Scene(BACKGROUND, (thing(radius=0.01, centers=np.full((3, 2), 0.5)),))
    frames, labels = render(scene, [0, 2])
    columns = np.arange(CANVAS)
    for place, frame in enumerate((0, 2)):
        wave = np.sin(2 * np.pi * 4 / CANVAS * (columns - 0.5 * frame))
        expected = 255 * (BACKGROUND.color[:, None] + BACKGROUND.amplitudes[0][:, None] * wave)
        assert np.abs(frames[place] - expected[:, None]).max() <= 0.51
    assert not labels.any()


AREAS = {
    "disc": np.pi,
    "square": (2 * 0.85) ** 2,
    "ellipse": np.pi * 1.1 * 0.66,
    "triangle": 0.75 * np.sqrt(3),
    "cross": 2 * 2 * 0.7 - 0.7**2,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_shapes_have_their_areas_and_one_colour(shape: str, angle: float) -> None:
    item = thing(shape=shape, angles=np.full(3, angle))
    frames, labels = render(Scene(BACKGROUND, (item,)), [0])
    inside = labels[0] == 1
    assert inside.sum() == pytest.approx(AREAS[shape] * 20**2, rel=0.02)
    assert np.argwhere(inside).mean(0) == pytest.approx([63.5, 63.5], abs=0.3)
    colors = frames[0][:, inside]
    assert (colors == np.rint(255 * item.color)[:, None]).all()


def test_shapes_turn() -> None:
    item = thing(shape="ellipse", angles=np.array([0.0, np.pi / 2, 0.3]))
    _, labels = render(Scene(BACKGROUND, (item,)), [0, 1, 2])
    assert np.array_equal(labels[0].T, labels[1])
    assert not np.array_equal(labels[0], labels[2])
    lying = np.argwhere(labels[0])
    assert np.ptp(lying[:, 1]) > np.ptp(lying[:, 0])


@pytest.mark.parametrize("pattern", ["stripes", "checker", "egg_box"])
def test_patterns_are_on_the_turning_frame_of_the_object(pattern: str) -> None:
    angle, frequency = 0.6, 7.0
    item = thing(
        pattern=pattern, frequency=frequency, amplitude=0.1, angles=np.full(3, angle), radius=24.0
    )
    frames, labels = render(Scene(BACKGROUND, (item,)), [0])
    rows, columns = (np.argwhere(labels[0]) - 63.5).T / 24
    u = np.cos(angle) * columns + np.sin(angle) * rows
    v = -np.sin(angle) * columns + np.cos(angle) * rows
    value = np.sin(frequency * u)
    if pattern != "stripes":
        value = value * np.sin(frequency * v)
    if pattern == "checker":
        clear = np.abs(value) > 1e-3
        value = np.sign(value)
    else:
        clear = np.ones(len(value), dtype=bool)
    expected = 255 * np.clip(item.color[:, None] + 0.1 * value, 0, 1)
    drawn = frames[0][:, labels[0] == 1]
    assert np.abs(drawn - expected)[:, clear].max() <= 0.51


def test_later_objects_cover_earlier_ones_and_leave_the_canvas() -> None:
    corner = thing(centers=np.zeros((3, 2)), radius=15.0)
    below = thing(color=np.array([0.1, 0.1, 0.9]), radius=10.0)
    scene = Scene(BACKGROUND, (below, thing(radius=20.0), corner))
    frames, labels = render(scene, [0])
    assert set(np.unique(labels)) == {0, 2, 3}
    assert labels[0, 0, 0] == 3
    assert labels[0, 127, 127] == 0
    assert frames[0][:, 63, 63].tolist() == [230, 128, 26]


def test_hard_clips_have_stronger_patterns() -> None:
    def amplitude(split: str) -> set[float]:
        scenes = [MovingShapes(split).scene(index) for index in range(5)]
        return {item.amplitude for scene in scenes for item in scene.objects}

    assert amplitude("train") == amplitude("val") == amplitude("hidden_val") == {0.15}
    assert amplitude("hard_train") == amplitude("hard_val") == {0.35}


def test_hidden_clips_hide_an_object_between_two_sights_of_it() -> None:
    shapes = MovingShapes("hidden_val")
    num_found = 0
    for index in range(8):
        clip = shapes.clip(index)
        assert clip.hidden.shape == (clip.num_objects, 24)
        hidden = clip.hidden[-2]
        assert hidden.any()
        assert not hidden.all()
        num_found += bool(not hidden[:2].any() and not hidden[-2:].any())
        areas = (clip.label_maps == clip.num_objects - 1).flatten(1).sum(1)
        assert torch.equal(hidden, areas < 0.1 * areas.max())
        assert clip.dropped.sum() in (4, 5, 6)
    assert num_found >= 5
    assert not MovingShapes("val").clip(0).dropped.any()


@pytest.mark.parametrize("num_frames", [1, 2, 50])
@pytest.mark.parametrize("split", ["train", "hidden_val"])
def test_clips_of_any_length(split: str, num_frames: int) -> None:
    clip = MovingShapes(split, num_frames=num_frames).clip(0)
    assert len(clip.frames) == len(clip.label_maps) == num_frames
    if split == "train":
        least = min(num_frames, 24)
        known = MovingShapes(split).clip(0)
        assert torch.equal(clip.label_maps[:least], known.label_maps[:least])


def test_bad_requests() -> None:
    with pytest.raises(UserError, match="no split 'vall'; use val"):
        MovingShapes("vall")
    with pytest.raises(UserError, match="0 frames"):
        MovingShapes("val", num_frames=0)
    with pytest.raises(IndexError, match="from 0"):
        MovingShapes("val").clip(-1)
    with pytest.raises(IndexError, match="24 frames"):
        MovingShapes("val").clip(0, frames=[24])
