"""Overlays and strips: colours, tint, labels inside the picture, the right frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidseg import rle
from vidseg.errors import DataError
from vidseg.structures import VideoInstances
from vidseg.video.draw import Drawing, FramePainter, drawings, save_overlay, track_color
from vidseg.video.io import VideoReader
from vidseg.video.labels import free_corner, make_plate
from vidseg.video.strip import save_strips

SIZE = (48, 64)


def box_mask(top: int, left: int, height: int = 12, width: int = 16) -> rle.RLE:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return rle.encode(mask)


def two_tracks(num_frames: int, indices: Sequence[int] | None = None) -> VideoInstances:
    moving = [box_mask(4, 2 + t) for t in range(num_frames)]
    late = [None if t < num_frames // 2 else box_mask(30, 40) for t in range(num_frames)]
    return VideoInstances(
        scores=torch.tensor([0.9, 0.3]),
        labels=torch.tensor([1, 0]),
        track_ids=torch.tensor([7, 3]),
        masks=[moving, late],
        image_size=SIZE,
        frame_indices=list(range(num_frames)) if indices is None else list(indices),
    )


def grey(num_frames: int) -> list[np.ndarray]:
    return [np.full((*SIZE, 3), 90, dtype=np.uint8)] * num_frames


def test_colours_are_stable_and_differ() -> None:
    colors = [track_color(number) for number in range(12)]
    assert colors == [track_color(number) for number in range(12)]
    distances = [np.abs(np.subtract(a, b)).max() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(distances) > 30
    assert len({track_color(number) for number in range(200)}) > 190
    luminance = np.array(colors) @ [0.299, 0.587, 0.114]
    assert luminance.min() > 70


def test_first_colours_are_told_apart_by_eyes() -> None:
    rgb = np.array([track_color(number) for number in range(20)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(
        [[0.4339, 0.2126, 0.0178], [0.3762, 0.7152, 0.1095], [0.1899, 0.0722, 0.8729]]
    )
    x, y, z = np.cbrt(xyz).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)  # none is near black
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(20)
    assert distances[:7, :7].min() > 50
    assert distances.min() > 25
    assert (rgb @ [0.299, 0.587, 0.114]).min() > 0.42


def test_tint_and_outline_stay_on_the_mask() -> None:
    image = np.full((*SIZE, 3), 90, dtype=np.uint8)
    painted = FramePainter(SIZE).paint(image, [Drawing(box_mask(10, 20), 5, "")])
    mask = rle.decode(box_mask(10, 20))
    np.testing.assert_array_equal(painted[~mask], 90)
    assert (image == 90).all()
    assert tuple(painted[10, 25]) == track_color(5)  # outline
    assert tuple(painted[16, 28]) != track_color(5)
    assert not np.array_equal(painted[16, 28], [90, 90, 90])


def test_outline_leaves_out_the_border_of_the_picture() -> None:
    painted = FramePainter(SIZE).paint(grey(1)[0], [Drawing(box_mask(0, 0), 5, "")])
    assert tuple(painted[0, 5]) != track_color(5)
    assert tuple(painted[11, 5]) == track_color(5)


def test_small_objects_lie_on_top() -> None:
    large, small = Drawing(box_mask(0, 0, 40, 60), 1, ""), Drawing(box_mask(10, 10, 5, 5), 2, "")
    first = FramePainter(SIZE).paint(grey(1)[0], [small, large])
    second = FramePainter(SIZE).paint(grey(1)[0], [large, small])
    np.testing.assert_array_equal(first, second)
    assert tuple(first[10, 12]) == track_color(2)


def test_empty_masks_and_no_objects_change_nothing() -> None:
    painter = FramePainter(SIZE, boxes=True)
    np.testing.assert_array_equal(painter.paint(grey(1)[0], []), 90)
    nothing = Drawing(rle.empty(*SIZE), 1, "person")
    np.testing.assert_array_equal(painter.paint(grey(1)[0], [nothing]), 90)


def test_mask_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="track 1 is 64x48, but the frames are 64x50"):
        FramePainter((50, 64)).paint(
            np.zeros((50, 64, 3), np.uint8), [Drawing(box_mask(0, 0), 1, "")]
        )


@pytest.mark.parametrize("place", [(0, 0), (0, 63), (47, 0), (47, 63), (20, 30)])
@pytest.mark.parametrize("text", ["a", "person 0.93 #3", "x" * 300])
def test_labels_stay_inside_the_picture(place: tuple[int, int], text: str) -> None:
    plate = make_plate(text, (255, 0, 0), 10, max_width=SIZE[1])
    assert plate.width <= SIZE[1]
    top, left = place
    (x, y), _ = free_corner((left, top, left + 1, top + 1), plate.size, SIZE, plates=[])
    assert 0 <= x <= SIZE[1] - plate.width
    assert 0 <= y <= SIZE[0] - plate.height


def test_labels_avoid_each_other() -> None:
    box = (100, 100, 140, 130)
    plates: list[tuple[int, ...]] = []
    for _ in range(4):
        (x, y), _ = free_corner(box, (30, 10), (300, 300), plates=plates)
        assert all(x + 30 <= p[0] or p[2] <= x or y + 10 <= p[1] or p[3] <= y for p in plates)
        plates.append((x, y, x + 30, y + 10))


def test_label_prefers_its_last_place() -> None:
    box = (100, 100, 140, 130)
    _, place = free_corner(box, (30, 10), (300, 300), plates=[], preferred=1)
    assert place == 1
    blocked = [(90, 125, 200, 160)]
    _, place = free_corner(box, (30, 10), (300, 300), plates=blocked, preferred=1)
    assert place != 1


def test_crowds_get_short_labels() -> None:
    many = [Drawing(box_mask(0, 3 * n, 4, 2), n, "somebody 0.50", f"#{n}") for n in range(20)]
    painter = FramePainter(SIZE)
    painter.paint(grey(1)[0], many)
    assert {text for text, _, _ in painter._plates} == {f"#{n}" for n in range(20)}


def test_drawings_name_class_score_and_id() -> None:
    frames = drawings(two_tracks(4), class_names=["cat", "dog"])
    assert [[d.text for d in frame] for frame in frames[1:3]] == [
        ["dog 0.90 #7"],
        ["dog 0.90 #7", "cat 0.30 #3"],
    ]
    assert [d.text for d in drawings(two_tracks(4), min_score=0.5)[3]] == ["class 1 0.90 #7"]


def test_track_with_two_labels_is_drawn_once() -> None:
    mask = [box_mask(0, 0)]
    ids, scores = torch.tensor([4, 4]), torch.tensor([0.2, 0.8])
    result = VideoInstances(scores, torch.tensor([0, 1]), ids, [mask, mask], SIZE, [0])
    assert [d.text for d in drawings(result)[0]] == ["class 1 0.80 #4"]


def test_overlay_has_every_frame_at_its_time(make_video: Callable[..., Path]) -> None:
    times = [0.0, 0.04, 0.1, 0.35, 0.36, 0.5]
    path = make_video(num_frames=6, times=times)
    output = save_overlay(path, two_tracks(6), path.with_name("overlay.mp4"))
    frames = list(VideoReader(output).frames())
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-3)
    plain = [frame.image for frame in VideoReader(path).frames()]
    for t, frame in enumerate(frames):
        assert frame.image.shape == plain[t].shape
        inside = np.abs(frame.image[10, 10 + t].astype(int) - plain[t][10, 10 + t]).max()
        outside = np.abs(frame.image[-3, 3].astype(int) - plain[t][-3, 3]).max()
        assert inside > 40
        assert outside < 12


def test_overlay_of_chosen_frames(make_video: Callable[..., Path]) -> None:
    path = make_video(num_frames=8)
    output = save_overlay(path, two_tracks(3, [1, 4, 7]), path.with_name("overlay.mp4"))
    times = [frame.time for frame in VideoReader(output).frames()]
    np.testing.assert_allclose(times, [0, 0.12, 0.24], atol=1e-3)


def test_overlay_of_a_picture(tmp_path: Path) -> None:
    result = two_tracks(1)
    output = save_overlay(grey(1), result, tmp_path / "new" / "overlay.png", class_names=["a", "b"])
    with Image.open(output) as image:
        assert image.size == SIZE[::-1]
    with pytest.raises(DataError, match="picture"):
        save_overlay(grey(2), two_tracks(2), tmp_path / "overlay.png")


def test_result_of_another_video_is_refused(make_video: Callable[..., Path]) -> None:
    path = make_video(num_frames=4)
    output = path.with_name("overlay.mp4")
    with pytest.raises(DataError, match=r"has no frame 4.*another video"):
        save_overlay(path, two_tracks(6), output)
    with pytest.raises(DataError, match="another video"):
        save_overlay(make_video("small.mp4", size=(32, 32)), two_tracks(4), output)
    assert not output.exists()


def test_overlay_without_frames_or_tracks(make_video: Callable[..., Path]) -> None:
    path = make_video(num_frames=2)
    output = path.with_name("overlay.mp4")
    with pytest.raises(DataError, match="no frame to draw"):
        save_overlay(path, VideoInstances.empty(SIZE), output)
    save_overlay(path, VideoInstances.empty(SIZE, [0, 1]), output, boxes=True)
    assert len(list(VideoReader(output))) == 2


def test_strips_have_a_row_per_track(make_video: Callable[..., Path]) -> None:
    path = make_video(num_frames=8)
    output = path.with_name("strips.png")
    heights = {}
    for min_score in (0.0, 0.5):
        save_strips(path, two_tracks(8), output, min_score=min_score, num_crops=4, crop_size=40)
        with Image.open(output) as image:
            heights[min_score] = image.height
    assert heights[0.0] > 1.8 * heights[0.5]
    assert save_strips(path, two_tracks(8), output, min_score=0.95) is None


def test_strip_shows_the_object(tmp_path: Path) -> None:
    frames = [frame.copy() for frame in grey(3)]
    for frame in frames:
        frame[30:42, 40:56] = (10, 240, 10)
    result = two_tracks(3)[1:]
    save_strips(frames, result, tmp_path / "strips.png", crop_size=32)
    with Image.open(tmp_path / "strips.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    green = (pixels[..., 1] > 150) & (pixels[..., 0] < 120) & (pixels[..., 2] < 140)
    assert green.sum() > 2 * 100
