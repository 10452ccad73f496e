"""Reading video: sizes, times, turned, odd, damaged and missing files."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vidseg.errors import DataError
from vidseg.video.io import VideoReader, VideoWriter, read_frames

MakeVideo = Callable[..., Path]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size"),
    [
        ("libx264", "yuv420p", (48, 64)),
        ("libx264", "yuv444p", (47, 63)),
        ("libx264", "yuv420p10le", (48, 64)),
        ("mpeg4", "yuv420p", (48, 64)),
        ("ffv1", "bgr0", (31, 33)),
    ],
)
def test_frames_come_in_order_as_rgb(
    make_video: MakeVideo, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    name = "clip.mkv" if codec == "ffv1" else "clip.mp4"
    reader = VideoReader(make_video(name, codec=codec, pix_fmt=pix_fmt, size=size))
    assert reader.info.size == size
    assert reader.info.fps == 25
    images = list(reader)
    assert [image.shape for image in images] == [(*size, 3)] * 10
    assert all(image.dtype == np.uint8 for image in images)
    brightness = [int(image[-8:, -8:].mean()) for image in images]
    np.testing.assert_allclose(brightness, [40 + 4 * n for n in range(10)], atol=6)
    red = images[0][4:12, 4:12].mean((0, 1))
    assert red[0] > 180
    assert red[1:].max() < 70


def test_uneven_times_are_kept(make_video: MakeVideo) -> None:
    times = [0.0, 0.04, 0.1, 0.35, 0.36, 0.5]
    reader = VideoReader(make_video(num_frames=6, times=times))
    np.testing.assert_allclose([frame.time for frame in reader.frames()], times, atol=1e-3)
    assert [frame.index for frame in reader.frames()] == list(range(6))


def test_every_and_max_frames_keep_numbers_and_times(make_video: MakeVideo) -> None:
    reader = VideoReader(make_video(), every=3, max_frames=3)
    frames = list(reader.frames())
    assert [frame.index for frame in frames] == [0, 3, 6]
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.12, 0.24], atol=1e-3)
    assert len(reader) == 3


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_in_the_header_is_applied(make_video: MakeVideo, degrees: int) -> None:
    path = turned(make_video(), degrees)
    reader = VideoReader(path)
    assert reader.info.size == ((48, 64) if degrees == 180 else (64, 48))
    image = next(iter(reader))
    assert image.shape[:2] == reader.info.size
    # stored, the red quarter is the top left one; the header's matrix turns it clockwise
    corners = {90: (0, -1), 180: (-1, -1), 270: (-1, 0)}
    row, column = corners[degrees]
    assert image[row, column][0] > 180
    assert image[row, column][1] < 80


def test_tensors_and_info_from_read_frames(make_video: MakeVideo) -> None:
    frames, info = read_frames(make_video(num_frames=3))
    tensors = list(frames)
    assert info.num_frames == 3
    assert [tuple(frame.shape) for frame in tensors] == [(3, 48, 64)] * 3
    assert tensors[0].dtype == torch.uint8


def test_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".frame0.png").write_bytes(b"left over by a file manager")
    reader = VideoReader(tmp_path, fps=5)
    assert [int(image[0, 0, 0]) for image in reader] == [1, 2, 10]
    assert [frame.time for frame in reader.frames()] == [0.0, 0.2, 0.4]
    assert reader.info.size == (10, 20)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_any_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tif" if mode in ("CMYK", "I;16") else "picture.png")
    if mode == "I;16":
        Image.fromarray(np.full((8, 9), 153 << 8, dtype=np.uint16)).save(path)
    else:
        Image.new("RGB", (9, 8), (153, 153, 153)).convert(mode).save(path)
    (image,) = VideoReader(path)
    assert image.shape == (8, 9, 3)
    np.testing.assert_allclose(image[1:], 153, atol=52 if mode == "P" else 3)  # P is dithered


def test_picture_is_turned_as_exif_asks(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    Image.new("RGB", (20, 10)).save(tmp_path / "photo.jpg", exif=exif)
    reader = VideoReader(tmp_path / "photo.jpg")
    assert reader.is_picture
    assert reader.info.size == (20, 10)


@pytest.mark.parametrize("kind", ["list", "tensor", "iterator", "grey"])
def test_frames_in_memory(kind: str) -> None:
    array = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    source = {
        "list": list(array),
        "tensor": torch.from_numpy(array).permute(0, 3, 1, 2),
        "iterator": iter(array),
        "grey": list(array[..., 0]),
    }[kind]
    images = list(VideoReader(source))
    wanted = array[..., :1].repeat(3, -1) if kind == "grey" else array
    np.testing.assert_array_equal(np.stack(images), wanted)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), "uint8"),
        (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\)"),
        ("nowhere.png", "nowhere.png"),
        (7, "int"),
    ],
)
def test_wrong_frames_in_memory_are_named(frame: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(VideoReader([frame]))


def test_pictures_of_different_size_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "1.png")
    Image.new("RGB", (22, 10)).save(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"2\.png is 22x10.*20x10"):
        list(VideoReader(tmp_path))


def test_jpeg_named_mp4_is_a_video_of_one_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (32, 16), (10, 200, 10)).save(tmp_path / "clip.mp4", format="jpeg")
    reader = VideoReader(tmp_path / "clip.mp4")
    assert len(list(reader)) == len(reader) == 1
    assert "still picture" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"This is a shopping list.\n" * 20, "holds text"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "cut off"),
        (bytes(range(256)) * 8, "not a video that can be read"),
    ],
)
def test_unreadable_files_are_explained(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        VideoReader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sound_without_pictures_is_explained(audio_only: Path) -> None:
    with pytest.raises(DataError, match=r"sound\.mp4 has sound but no video stream"):
        VideoReader(audio_only)


def test_missing_file_names_the_nearest(make_video: MakeVideo) -> None:
    path = make_video("street.mp4")
    with pytest.raises(DataError, match=r"no such file.*did you mean .*street\.mp4"):
        VideoReader(path.with_name("stret.mp4"))


def test_empty_folder_and_folder_of_videos(make_video: MakeVideo, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        VideoReader(tmp_path / "empty")
    make_video()
    with pytest.raises(DataError, match="1 video files one by one"):
        VideoReader(tmp_path)


def test_bad_packets_cost_only_their_frames(
    make_video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_video(num_frames=40, size=(96, 128), options={"crf": "5", "g": "8", "bf": "0"})
    whole = len(list(VideoReader(path)))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        left = len(list(VideoReader(path)))
    assert whole == 40
    assert 20 < left < 40
    assert len(caplog.records) == 1
    assert f"{left} frames of 40 announced" in caplog.text


def test_truncated_file_gives_its_first_frames_and_one_warning(
    make_video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"crf": "5", "bf": "0", "g": "8"}
    path = make_video("clip.mkv", num_frames=40, size=(96, 128), options=options)
    faststart = path.with_name("cut.mp4")
    remux(path, faststart)
    faststart.write_bytes(faststart.read_bytes()[: faststart.stat().st_size * 6 // 10])
    caplog.clear()
    reader = VideoReader(faststart)
    left = len(list(reader))
    assert 5 < left < 40
    assert len(caplog.records) == 1
    assert "the rest of the file is missing" in caplog.text
    caplog.clear()
    assert len(list(VideoReader(faststart, quiet=True))) == left
    assert not caplog.records


def test_damaged_picture_in_a_folder_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{number}.png")
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    assert [frame.index for frame in VideoReader(tmp_path).frames()] == [1, 3]
    assert "2 of 4 pictures left out" in caplog.text


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    def peak(num_frames: int) -> int:
        frames = (np.full((48, 64, 3), 7, dtype=np.uint8) for _ in range(num_frames))
        with VideoWriter(tmp_path / "clip.mp4", fps=25) as writer:
            for frame in frames:
                writer.write(frame)
        reader = VideoReader(tmp_path / "clip.mp4")
        tracemalloc.start()
        for _ in reader:
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(5)
    assert peak(200) < 1.5 * peak(20) + 20_000


def test_rate_of_ntsc_is_read(make_video: MakeVideo) -> None:
    reader = VideoReader(make_video(rate=Fraction(30000, 1001)))
    assert reader.info.fps == pytest.approx(29.97, abs=0.01)


def remux(source: Path, target: Path) -> None:
    """Copies the packets into an MP4 with its index in front."""
    options = {"movflags": "+faststart"}
    with av.open(str(source)) as given, av.open(str(target), "w", options=options) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)


def turned(path: Path, degrees: int) -> Path:
    """Writes a rotation into the track header of an MP4 (the matrix at the end of `tkhd`)."""
    one, zero, minus = (n.to_bytes(4, "big", signed=True) for n in (1 << 16, 0, -(1 << 16)))
    rows = {90: (zero, one, minus, zero), 180: (minus, zero, zero, minus)}
    rows[270] = (zero, minus, one, zero)
    a, b, c, d = rows[degrees]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0
    data[matrix : matrix + 8] = a + b
    data[matrix + 12 : matrix + 20] = c + d
    result = path.with_name(f"turned_{degrees}.mp4")
    result.write_bytes(data)
    return result
