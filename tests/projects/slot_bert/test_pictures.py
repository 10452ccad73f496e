"""Pictures of slots: their colours, their panels, and what stands in a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.projects.slot_bert.picture_ground import frame_of, moving_squares, prediction_of
from vidseg.errors import DataError
from vidseg.projects.slot_bert.clip_view import ClipView, match_objects, slot_color
from vidseg.projects.slot_bert.panels import (
    FramePanels,
    nearest_resized,
    panel_size,
    segmentation_picture,
    slot_picture,
    truth_picture,
)
from vidseg.projects.slot_bert.pictures import save_clip_grid, save_clip_pictures, save_iterations
from vidseg.projects.slot_bert.thinning import Thinned
from vidseg.video.io import VideoReader


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_twenty_slots_have_twenty_colours() -> None:
    colors = np.array([slot_color(slot) for slot in range(20)], dtype=int)
    distances = np.abs(colors[:, None] - colors).sum(2) + 1000 * np.eye(20, dtype=int)
    assert distances.min() > 30
    assert distances[:12, :12].min() > 60
    assert slot_color(20) == slot_color(0)


def test_a_slot_is_painted_in_its_colour_whatever_the_frame() -> None:
    segmentation = np.array([[0, 3], [3, 19]])
    solid = segmentation_picture(segmentation)
    assert tuple(solid[1, 1]) == slot_color(19)
    assert tuple(solid[0, 1]) == slot_color(3)
    frame = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 0, 0]]], np.uint8)
    mixed = segmentation_picture(segmentation, frame, opacity=0.5)
    np.testing.assert_array_equal(mixed[0, 1], mixed[1, 0])  # as bright, so the same
    assert not (mixed == solid).all()


def test_true_objects_have_the_colours_of_their_slots() -> None:
    label_map = np.array([[-1, 0], [1, 2]])
    picture = truth_picture(label_map, {1: 4})
    assert tuple(picture[1, 0]) == slot_color(4)
    assert tuple(picture[1, 1]) == (255, 255, 255)  # no slot is left for it
    assert tuple(picture[0, 0]) == (0, 0, 0)
    assert len({tuple(color) for color in picture.reshape(-1, 3)}) == 4


def test_objects_and_slots_are_matched_one_to_one_over_the_clip() -> None:
    _, labels = moving_squares()
    assert match_objects(labels, np.array([5, 2, 0])[labels]) == {1: 2, 2: 0}
    # Both objects lie in one slot, and no other one lies on them.
    assert list(match_objects(labels, np.array([0, 1, 1])[labels]).values()) == [1]
    assert match_objects(np.full((1, 2, 2), -1), np.zeros((1, 2, 2), int)) == {}
    assert match_objects(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int)) == {}


def test_a_slot_is_shown_before_a_checkerboard() -> None:
    frame = np.full((16, 16, 3), 10, np.uint8)
    mask = np.zeros((16, 16), np.float32)
    mask[:, :4] = 1
    mask[:, 4:8] = 0.5
    shown = slot_picture(frame, mask)
    assert (shown[:, :4] == 10).all()
    assert len(np.unique(shown[:8, 8:])) == 1
    assert len(np.unique(shown[:, 8:])) == 2
    assert shown[0, 8, 0] != shown[8, 8, 0]
    assert shown[0, 5, 0] == pytest.approx((10 + int(shown[8, 8, 0])) / 2, abs=1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (128, 128)), ((32, 48), (64, 96)), ((480, 640), (96, 128)), ((1, 900), (1, 128))],
)
def test_panels_have_whole_multiples_or_fit(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert panel_size(size, longest=128) == expected


def test_labels_are_never_mixed_by_resizing() -> None:
    labels = np.array([[0, 7], [3, 7]])
    np.testing.assert_array_equal(nearest_resized(labels, (4, 4))[::2, ::2], labels)
    assert set(np.unique(nearest_resized(labels, (5, 3)))) <= {0, 3, 7}


def test_panels_are_those_of_the_columns() -> None:
    frame = frame_of()
    painter = FramePanels.like(frame, longest=64)
    panels, captions = painter.panels(frame)
    assert painter.layout.titles[:4] == ["original", "segmentation", "reconstruction", "slot 0"]
    assert len(panels) == len(captions) == len(painter.layout.titles) == 6
    assert captions[:3] == ["", "", ""]
    assert [float(c.split()[0]) for c in captions[3:]] == pytest.approx([6.2, 87.5, 6.2], abs=0.06)
    np.testing.assert_array_equal(panels[0][::2, ::2], frame.image)
    red, board = panels[5][10, 10].astype(int), panels[3][10, 10]
    assert red[0] - red[1] > 150
    assert board.min() > 180


def test_grid_shows_at_most_so_many_frames(tmp_path: Path) -> None:
    frames, labels = moving_squares(6)
    found = prediction_of(labels)
    save_clip_grid(tmp_path / "all.png", frames, found, label_maps=labels)
    save_clip_grid(tmp_path / "some.png", frames, found, label_maps=labels, max_frames=2)
    save_clip_grid(tmp_path / "bare.png", frames, {"segmentation": found["segmentation"]})
    every, some, bare = (read(tmp_path / f"{name}.png") for name in ("all", "some", "bare"))
    assert every.shape[1] == some.shape[1]
    assert every.shape[0] - 24 == 3 * (some.shape[0] - 24)
    assert bare.shape[1] < some.shape[1]  # no truth, no reconstruction
    np.testing.assert_array_equal(every[: len(some) // 2], some[: len(some) // 2])


def as_given(frames: torch.Tensor, kind: str) -> Any:
    return {
        "float": frames.float() / 255,
        "alpha": torch.cat([frames, frames[:, :1]], 1),
        "array": frames.numpy(),
    }[kind]


@pytest.mark.parametrize("kind", ["float", "alpha", "array"])
def test_frames_of_all_kinds_look_alike(tmp_path: Path, kind: str) -> None:
    frames, labels = moving_squares(2)
    found = prediction_of(labels)
    save_clip_grid(tmp_path / "a.png", frames, found)
    save_clip_grid(tmp_path / "b.png", as_given(frames, kind), found)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), read(tmp_path / "b.png"))


def test_grey_frames_and_half_precision_are_shown() -> None:
    frames, labels = moving_squares(2)
    found = {
        key: x.bfloat16() if x.is_floating_point() else x
        for key, x in prediction_of(labels).items()
    }
    view = ClipView.of(frames[:, :1], found)
    assert view.frames.shape == (2, 32, 32, 3)
    assert view.masks.dtype == np.float32


def test_frames_of_another_clip_are_refused() -> None:
    frames, labels = moving_squares(4)
    with pytest.raises(DataError, match=r"shape \(4, 32, 32\) does not belong to .*\(3, 32, 32\)"):
        ClipView.of(frames[:3], prediction_of(labels))


def test_a_clip_has_a_folder_with_picture_and_videos(tmp_path: Path) -> None:
    frames, labels = moving_squares()
    sample = {"video_id": "a/b c", "frames": frames, "label_maps": labels}
    files = save_clip_pictures(tmp_path, sample, prediction_of(labels))
    folder = tmp_path / "a%2Fb c"
    assert files == [folder / name for name in ("grid.png", "panels.mp4", "panels.gif")]
    assert all(path.is_file() for path in files)
    assert len(list(VideoReader(folder / "panels.mp4"))) == 6
    sample["label_maps"] = None  # of a data set without truth
    assert save_clip_pictures(tmp_path, sample, prediction_of(labels)) == files


def test_iterations_stand_below_each_other(tmp_path: Path) -> None:
    attention = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 4, 4)).transpose(0, 3, 1, 2)
    save_iterations(tmp_path / "two.png", frame_of(), attention)
    save_iterations(tmp_path / "one.png", frame_of(), attention[:1])
    two, one = read(tmp_path / "two.png"), read(tmp_path / "one.png")
    assert (two.shape[0] - 24) == 2 * (one.shape[0] - 24)
    np.testing.assert_array_equal(two[: len(one)], one)


@pytest.mark.parametrize("max_num", [2, 4, 5])
@pytest.mark.parametrize("length", [0, 1, 4, 5, 9, 33])
def test_thinned_items_are_evenly_spaced(max_num: int, length: int) -> None:
    kept: Thinned[int] = Thinned(max_num)
    for number in range(length):
        if kept.takes_next:
            kept.add(number)
        else:
            kept.skip()
    assert len(kept.items) <= max_num
    if length:
        assert kept.items[0] == 0
    steps = set(np.diff(kept.items).tolist())
    assert len(steps) <= 1
    if length <= max_num:
        assert kept.items == list(range(length))
    else:
        assert len(kept.items) >= max_num / 2
