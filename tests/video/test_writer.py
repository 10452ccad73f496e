"""Written video plays anywhere: codec, format, even sides, times, colours; or there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidseg.errors import DataError
from vidseg.video import writer as writer_module
from vidseg.video.io import VideoReader, VideoWriter


def write(
    path: Path, *, size: tuple[int, int], fps: float = 25, count: int = 6, fail_at: int = -1
) -> None:
    with VideoWriter(path, fps=fps) as writer:
        for number in range(count):
            if number == fail_at:
                raise ZeroDivisionError
            writer.write(np.full((*size, 3), 20 * number, dtype=np.uint8))


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (2, 301)])
def test_file_is_h264_with_even_sides_and_index_in_front(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "new" / "clip.mp4"
    write(path, size=size)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "h264"
        assert context.pix_fmt == "yuv420p"
        assert (context.height, context.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert len(list(VideoReader(path))) == 6
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_odd_sides_repeat_the_border(tmp_path: Path) -> None:
    image = np.zeros((33, 33, 3), dtype=np.uint8)
    image[-1] = 255
    image[:, -1] = 255
    with VideoWriter(tmp_path / "clip.mp4", fps=5, quality=1) as writer:
        writer.write(image)
    (read,) = VideoReader(tmp_path / "clip.mp4")
    assert read.shape == (34, 34, 3)
    assert read[-1].min() > 200
    assert read[:, -1].min() > 200
    assert read[:30, :30].max() < 40


@pytest.mark.parametrize("fps", [25, 32, 24000 / 1001, 7.3, 1 / 3])
def test_constant_rate_has_exact_times(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "clip.mp4"
    write(path, size=(16, 16), fps=fps)
    reader = VideoReader(path)
    assert reader.info.fps == pytest.approx(fps, rel=1e-4)
    times = [frame.time for frame in reader.frames()]
    np.testing.assert_allclose(times, np.arange(6) / fps, atol=1e-4 / fps)


def test_given_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.017, 0.267, 0.3, 0.3, 0.9]  # one stands still, which no file allows
    with VideoWriter(tmp_path / "clip.mp4", fps=25) as writer:
        for time in times:
            writer.write(np.zeros((16, 16, 3), np.uint8), time=time)
    read = [frame.time for frame in VideoReader(tmp_path / "clip.mp4").frames()]
    np.testing.assert_allclose(read, times, atol=1e-4)


def test_one_frame_lasts(tmp_path: Path) -> None:
    write(tmp_path / "clip.mp4", size=(16, 16), fps=10, count=1)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream: Any = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(0.1)


@pytest.mark.parametrize("color", [(220, 30, 30), (30, 200, 40), (20, 40, 230), (128, 128, 128)])
def test_colours_survive(tmp_path: Path, color: tuple[int, int, int]) -> None:
    image = np.full((32, 32, 3), color, dtype=np.uint8)
    with VideoWriter(tmp_path / "clip.mp4", fps=5) as writer:
        writer.write(image)
    (read,) = VideoReader(tmp_path / "clip.mp4")
    np.testing.assert_allclose(read.mean((0, 1)), color, atol=4)


def test_nothing_stays_behind_after_an_error(tmp_path: Path) -> None:
    old = tmp_path / "clip.mp4"
    old.write_bytes(b"earlier result")
    with pytest.raises(ZeroDivisionError):
        write(old, size=(16, 16), fps=5, count=3, fail_at=2)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert old.read_bytes() == b"earlier result"


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "clip.mp4", fps=5)
    writer.write(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(DataError, match="frame 1 is 16x20, the frames before are 16x16"):
        writer.write(np.zeros((20, 16, 3), np.uint8))
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        write(tmp_path / "file" / "clip.mp4", size=(16, 16))


def test_without_x264_it_says_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_module.av, "codecs_available", {"mpeg4"})
    write(tmp_path / "clip.mp4", size=(32, 32))
    assert "no libx264" in caplog.text
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
