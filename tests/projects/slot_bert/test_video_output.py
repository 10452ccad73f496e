"""Videos of slots, gif and mp4, and the files with masks and tracks."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.ground import no_room
from tests.projects.slot_bert.picture_ground import frame_of, moving_squares
from vidseg import rle
from vidseg.errors import UserError
from vidseg.projects.slot_bert.gif import GifWriter
from vidseg.projects.slot_bert.track_files import ArrayFile, TrackFile, describe_slots
from vidseg.projects.slot_bert.video_output import VIDEOS, SlotVideos
from vidseg.video.io import VideoReader


def gif_of(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Gives the frames of a gif and how many milliseconds each is shown."""
    frames, durations = [], []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(int(image.info["duration"]))
    return frames, durations


def flickering(number: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), (number * 37 % 256, number * 91 % 256, 60), np.uint8)


@pytest.mark.parametrize("fps", [5.0, 24.0, 29.97])
def test_gif_plays_at_the_pace_of_the_source(tmp_path: Path, fps: float) -> None:
    with GifWriter(tmp_path / "a.gif", fps=fps) as writer:
        for number in range(40):
            writer.write(flickering(number))
    frames, durations = gif_of(tmp_path / "a.gif")
    assert len(frames) == 40
    assert sum(durations) == pytest.approx(1000 * 40 / fps, abs=10)
    assert max(durations) - min(durations) <= 10
    for number, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - flickering(number)).max() <= 16


def test_gif_keeps_uneven_times(tmp_path: Path) -> None:
    with GifWriter(tmp_path / "a.gif", fps=10) as writer:
        for number, time in enumerate((0.0, 0.05, 0.5, 0.505, 0.7)):
            writer.write(flickering(number), time=time)
    assert gif_of(tmp_path / "a.gif")[1] == [50, 450, 200, 100]  # 0.505 is too soon for players


def test_gif_of_a_long_video_is_bounded(tmp_path: Path) -> None:
    tracemalloc.start()
    with GifWriter(tmp_path / "a.gif", fps=25, max_frames=8) as writer:
        for number in range(200):
            writer.write(flickering(number, 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    frames, durations = gif_of(tmp_path / "a.gif")
    assert 4 <= len(frames) <= 8
    assert sum(durations) == pytest.approx(8000, abs=10)
    assert peak < 4e6


def test_no_gif_of_nothing_or_of_a_failure(tmp_path: Path) -> None:
    with GifWriter(tmp_path / "a.gif", fps=5):
        pass
    with suppress(KeyError), GifWriter(tmp_path / "b.gif", fps=5) as writer:
        writer.write(flickering(0))
        raise KeyError
    assert not list(tmp_path.iterdir())


def write_gif(path: Path) -> None:
    with GifWriter(path, fps=5) as gif:
        gif.write(flickering(0))


def write_tracks(path: Path) -> None:
    with TrackFile(path, source="a", size=(4, 4), num_slots=2) as tracks:
        for number in range(200):
            blank = np.zeros((4, 4), int)
            tracks.write(np.zeros((4, 4, 3), np.uint8), blank, frame=number, time=0.0)


def write_arrays(path: Path) -> None:
    with ArrayFile(path) as arrays:
        arrays.write({"x": np.zeros((100, 100))})


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (write_gif, r"cannot write .*/file: "),
        (write_tracks, r"cannot write .*/file: "),
        (write_arrays, "point TMPDIR to a larger disk"),
    ],
)
def test_a_full_disk_is_said(tmp_path: Path, write: Callable[[Path], None], says: str) -> None:
    with no_room(), pytest.raises(UserError, match=says):
        write(tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", [32, 300])
def test_every_view_is_written_in_every_format(tmp_path: Path, side: int) -> None:
    frame = frame_of(side)
    with SlotVideos(tmp_path, frame, fps=10.0) as videos:
        for number in range(2):
            # A gif joins frames that are equal.
            image = frame.image.copy()
            image[: 4 * number] = 50 * number
            drawn = np.full((16, 16, 3), 50 * number, np.uint8)
            slots = (frame.segmentation + number) % 3
            other = replace(frame, image=image, reconstruction=drawn, segmentation=slots)
            videos.write(other, time=number / 10)
    assert {path.name for path in videos.files} == {
        f"{name}.{kind}" for name in VIDEOS for kind in ("mp4", "gif")
    }
    for path in videos.files:
        frames = list(VideoReader(path).frames())
        assert [round(one.time, 2) for one in frames] == [0.0, 0.1], path
    # Small frames are enlarged by whole factors.
    original = next(iter(VideoReader(tmp_path / "original.mp4")))
    assert original.shape == ((256, 256, 3) if side == 32 else (600, 600, 3))


def test_videos_without_a_reconstruction(tmp_path: Path) -> None:
    frame = frame_of(has_reconstruction=False)
    with SlotVideos(tmp_path, frame, fps=10.0, formats=["gif"]) as videos:
        videos.write(frame, time=0.0)
    assert not (tmp_path / "reconstruction.gif").exists()
    assert len(list(tmp_path.iterdir())) == len(VIDEOS) - 1


def test_an_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    frame = frame_of()
    with suppress(KeyError), SlotVideos(tmp_path, frame, fps=10.0) as videos:
        videos.write(frame, time=0.0)
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_slots_are_described_in_pixels() -> None:
    image = np.zeros((5, 8, 3), np.uint8)
    slots = np.zeros((5, 8), int)
    slots[1:3, 2:6] = 2
    image[1:3, 2:6] = (200, 100, 0)
    image[1, 2] = (0, 100, 0)
    zero, one, two = describe_slots(image, slots, 3)
    assert one == {
        "slot": 1,
        "area": 0,
        "box": None,
        "centroid": None,
        "mean_color": None,
        "segmentation": None,
    }
    assert (two["area"], two["box"], two["centroid"]) == (8, [2, 1, 4, 2], [4.0, 2.0])
    assert two["mean_color"] == [175.0, 100.0, 0.0]
    np.testing.assert_array_equal(rle.decode(rle.from_text(two["segmentation"])), slots == 2)
    assert zero["area"] == 32


def test_tracks_are_json_of_all_frames(tmp_path: Path) -> None:
    frames, labels = moving_squares(4)
    path = tmp_path / "tracks.json"
    with TrackFile(path, source="a.mp4", size=(32, 32), num_slots=3) as tracks:
        for number, (frame, slots) in enumerate(zip(frames, labels, strict=True)):
            image = frame.permute(1, 2, 0).numpy()
            tracks.write(image, slots.astype(int), frame=2 * number, time=number / 12)
    content = json.loads(path.read_text())
    assert (content["source"], content["size"], content["num_slots"]) == ("a.mp4", [32, 32], 3)
    assert [frame["frame"] for frame in content["frames"]] == [0, 2, 4, 6]
    boxes = [frame["slots"][1]["box"] for frame in content["frames"]]
    assert boxes == [[2 + number, 2, 8, 8] for number in range(4)]
    assert content["frames"][1]["slots"][2]["mean_color"] == [20.0, 20.0, 220.0]
    with TrackFile(path, source="a", size=(32, 32), num_slots=3):
        pass
    assert json.loads(path.read_text())["frames"] == []


def test_arrays_grow_and_are_loaded_as_one(tmp_path: Path) -> None:
    parts = [np.arange(12).reshape(3, 2, 2) + number for number in range(3)]
    with ArrayFile(tmp_path / "a.npz") as file:
        for part in parts:
            file.write({"x": part.astype(np.uint8), "y": part[:, 0].astype(np.float32)})
    with np.load(tmp_path / "a.npz") as loaded:
        np.testing.assert_array_equal(loaded["x"], np.concatenate(parts))
        np.testing.assert_array_equal(loaded["y"], np.concatenate(parts)[:, 0])
        assert (loaded["x"].dtype, loaded["y"].dtype) == (np.uint8, np.float32)
    with suppress(KeyError), ArrayFile(tmp_path / "b.npz") as file:
        file.write({"x": parts[0]})
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
