"""Videos in .npy files: layouts, types, and what is no video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidseg.errors import DataError
from vidseg.video.io import VideoReader

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (FRAMES, FRAMES),
        (FRAMES.transpose(0, 3, 1, 2), FRAMES),
        (FRAMES / np.float32(255), FRAMES),
        (np.concatenate([FRAMES, FRAMES[..., :1]], 3), FRAMES),
        (FRAMES[..., 0], FRAMES[..., :1].repeat(3, 3)),
        (FRAMES[..., :1].astype(np.float64) / 255, FRAMES[..., :1].repeat(3, 3)),
    ],
    ids=["channels last", "channels first", "float", "alpha", "grey", "one channel, float"],
)
def test_every_layout_gives_the_same_frames(
    tmp_path: Path, array: np.ndarray, expected: np.ndarray
) -> None:
    np.save(tmp_path / "clip.npy", array)
    reader = VideoReader(tmp_path / "clip.npy", fps=10.0)
    assert (len(reader), reader.info.size, reader.info.fps) == (5, (6, 8), 10.0)
    for _ in range(2):  # again and again
        np.testing.assert_array_equal(np.stack(list(reader)), expected)
    assert [frame.index for frame in VideoReader(tmp_path / "clip.npy", every=2).frames()] == [
        *(0, 2, 4)
    ]


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 5)), r"clip\.npy holds an array of shape \(4, 5\); a video is"),
        (np.zeros((2, 5, 5, 7), np.uint8), r"shape \(2, 5, 5, 7\)"),
        (np.zeros((0, 4, 5, 3), np.uint8), r"shape \(0, 4, 5, 3\)"),
        (np.zeros((2, 4, 5, 3), np.int64), "holds int64; a video is uint8, or float"),
        (np.full((2, 4, 5, 3), 255.0), r"frame 0 of .*clip\.npy lies within 255 to 255; give"),
        (np.full((2, 4, 5, 3), np.nan), "lies within nan to nan"),
        (np.array([None, {}]), r"clip\.npy is no array that can be read: .*objects"),
    ],
)
def test_what_is_no_video_is_said(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "clip.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=says):
        list(VideoReader(tmp_path / "clip.npy"))


def test_a_file_that_was_cut_off_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", FRAMES)
    content = (tmp_path / "clip.npy").read_bytes()
    for length in (0, 20, len(content) - 10):
        (tmp_path / "clip.npy").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"clip\.npy is no array that can be read"):
            VideoReader(tmp_path / "clip.npy")


def test_animated_gifs_are_videos(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (8, 6), (40 * number, 0, 0)) for number in range(4)]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:], duration=100)
    frames = list(VideoReader(tmp_path / "clip.gif").frames())
    assert [round(frame.time, 2) for frame in frames] == [0.0, 0.1, 0.2, 0.3]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 40, 80, 120]
