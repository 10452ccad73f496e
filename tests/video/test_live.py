"""Cameras and pipes: what arrives is shown before the rest is there."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidseg.errors import DataError
from vidseg.video import live
from vidseg.video.io import VideoFrame, VideoReader
from vidseg.video.live import FrameSpool, StopOnInterrupt, is_live

MakeVideo = Callable[..., Path]

FORMS = {
    "matroska": ("libx264", {}, {"tune": "zerolatency"}),
    "mp4": ("libx264", {"movflags": "frag_every_frame+empty_moov"}, {"tune": "zerolatency"}),
    "mpegts": ("libx264", {}, {"tune": "zerolatency"}),
    "mjpeg": ("mjpeg", {}, {}),
    "yuv4mpegpipe": ("rawvideo", {}, {}),
}

SHOW = """
import sys
from vidseg.video.io import VideoReader
reader = VideoReader(sys.argv[1])
print(reader.info.size, reader.info.num_frames, flush=True)
for frame in reader.frames():
    print(frame.index, round(float(frame.image.mean())), flush=True)
"""


class Pipe(io.RawIOBase):
    """Gives a muxer the writing end of a pipe, which cannot seek."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.file.write(data)
        self.file.flush()
        return len(data)


def send(file: Any, form: str, num_frames: int, before: Callable[[int], None]) -> None:
    """Writes a growing brightness; ``before`` is called before every frame."""
    codec, options, codec_options = FORMS[form]
    with av.open(Pipe(file), "w", format=form, options=options) as container:
        stream: Any = container.add_stream(codec, rate=25, options=codec_options)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuvj420p" if form == "mjpeg" else "yuv420p"
        for number in range(num_frames):
            before(number)
            noise = np.random.default_rng(number).integers(0, 40, (64, 96, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noise + np.uint8(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.close()


@pytest.mark.parametrize("form", FORMS)
def test_frames_of_a_pipe_are_there_before_its_end(form: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SHOW, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    lines: list[str] = []
    enough = threading.Event()

    def listen() -> None:
        for line in child.stdout or ():
            lines.append(line.decode().strip())
            if len(lines) > 3:
                enough.set()

    listener = threading.Thread(target=listen)
    listener.start()

    def wait_near_the_end(number: int) -> None:
        if number == 110:
            assert enough.wait(20), lines  # 50 frames are still to be sent

    try:
        send(child.stdin, form, 160, wait_near_the_end)
        listener.join(20)
    finally:
        child.kill()
        child.wait()
    assert lines[0] == "(64, 96) None"
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(160))
    assert int(lines[150].split()[1]) == pytest.approx(149 + 20, abs=6)


def test_a_named_pipe_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "street.mkv"
    os.mkfifo(path)
    writer = threading.Thread(
        target=lambda: send(path.open("wb"), "matroska", 12, lambda _: None), daemon=True
    )
    writer.start()
    reader = VideoReader(path, every=5)
    assert reader.is_live
    assert [frame.index for frame in reader.frames()] == [0, 5, 10]
    with pytest.raises(DataError, match=r"street\.mkv can be read only once"):
        next(reader.frames())
    writer.join(10)


@pytest.fixture
def device(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A fake camera: what is opened as a device is a file; the calls are recorded."""
    video, opened, calls = make_video(), av.open, []

    def fake(name: str, **options: Any) -> Any:
        calls.append({"name": name, **options})
        return opened(str(video))

    monkeypatch.setattr(live.av, "open", fake)
    monkeypatch.setattr(live.Path, "exists", lambda path: str(path) == "/dev/video3")
    monkeypatch.setattr(live.sys, "platform", "linux")
    return calls


def test_a_camera_is_opened_as_a_device(device: list[dict[str, Any]]) -> None:
    reader = VideoReader("camera:3", max_frames=4)
    assert device == [{"name": "/dev/video3", "format": "v4l2"}]
    assert reader.info.num_frames is None
    assert reader.info.size == (48, 64)
    assert [frame.index for frame in reader.frames()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("platform", "name", "format_"),
    [("darwin", "3:none", "avfoundation"), ("win32", "video=3", "dshow")],
)
def test_cameras_of_other_systems(
    device: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    name: str,
    format_: str,
) -> None:
    monkeypatch.setattr(live.sys, "platform", platform)
    VideoReader("camera:3")
    assert device == [{"name": name, "format": format_}]


def test_what_is_live_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "fifo").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file.mp4").write_bytes(b"x")
    live_ones = ["-", Path("-"), "pipe:0", "camera:0", tmp_path / "fifo", "/dev/null"]
    assert [is_live(source) for source in live_ones] == [True] * 6
    others = [tmp_path, str(tmp_path / "file.mp4"), "gone.mp4", [], iter([]), "a\0b"]
    assert [is_live(source) for source in others] == [False] * 6


@pytest.mark.parametrize(
    ("source", "data", "said"),
    [
        ("-", b"", "the standard input cannot be read"),
        ("-", b"no video at all " * 9000, "the standard input cannot be read: Invalid data"),
        ("-", b"no video", "; it takes an encoded video: MPEG-TS, Matroska"),
        ("pipe:x", b"", "'pipe:x' is no pipe"),
        ("camera:77", b"", "there is no camera /dev/video77"),
        ("/dev/null", b"", "/dev/null cannot be read"),
    ],
)
def test_sources_that_bring_nothing_get_a_sentence(source: str, data: bytes, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", SHOW, source], input=data, capture_output=True)
    last = done.stderr.decode().strip().splitlines()[-1]
    assert "DataError" in last
    assert said in last


def test_an_mp4_with_its_index_at_the_end_gets_the_way_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    with av.open(str(tmp_path / "street.mp4"), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25, options={"qscale": "1"})
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for number in range(30):
            turned = np.roll(noise, 5 * number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(turned, format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "street.mp4").read_bytes()
    assert len(data) > 100_000  # more than FFmpeg keeps of what it has read
    assert data.index(b"moov") > data.index(b"mdat")
    done = subprocess.run([sys.executable, "-c", SHOW, "-"], input=data, capture_output=True)
    last = done.stderr.decode().strip().splitlines()[-1]
    assert "name the file itself, or put the index first: ffmpeg" in last


def test_a_terminal_is_no_video() -> None:
    master, terminal = os.openpty()
    try:
        with pytest.raises(DataError, match="is a terminal: pipe an encoded video into it"):
            VideoReader(f"pipe:{terminal}")
    finally:
        os.close(master)
        os.close(terminal)


def test_a_spool_gives_frames_back_and_starts_anew() -> None:
    def source() -> Iterator[VideoFrame]:
        for number in range(9):
            yield VideoFrame(
                number, number / 2, np.full((4, 6, 3), number, dtype=np.uint8)[:, ::-1]
            )

    spool = FrameSpool()
    passing = spool.passing(source())
    ends = []
    for _ in range(3):
        assert [next(passing).index for _ in range(3)]
        assert len(spool) == 3
        ends.append(spool._end)
        back = [spool.pop() for _ in range(3)]
        assert [int(frame.image.mean()) for frame in back] == [frame.index for frame in back]
        assert [frame.time for frame in back] == [frame.index / 2 for frame in back]
    assert ends == [3 * 72] * 3
    assert back[-1].index == 8


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process in the background starts with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_first_interrupt_ends_the_source_and_the_second_interrupts() -> None:
    frames = (VideoFrame(number, 0.0, np.zeros((2, 2, 3), np.uint8)) for number in range(100))
    seen = []
    with StopOnInterrupt() as interrupt:
        for frame in interrupt.until(frames):
            seen.append(frame.index)
            if frame.index == 4:
                os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert seen == [0, 1, 2, 3, 4]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
