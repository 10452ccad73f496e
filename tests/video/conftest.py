"""Small videos made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame that tells its number by its brightness and its top left quarter by being red."""
    image = np.full((height, width, 3), 40 + 4 * number, dtype=np.uint8)
    image[: height // 2, : width // 2] = (230, 20, 20)
    return image


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a video with PyAV alone, so that our reader is not tested against our writer."""

    def make(
        name: str = "clip.mp4",
        *,
        num_frames: int = 10,
        size: tuple[int, int] = (48, 64),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        times: list[float] | None = None,
        rate: Fraction = Fraction(25),
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=rate, options=options or {"crf": "10"})
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = Fraction(1, 1000) if times else 1 / rate
            for number in range(num_frames):
                frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
                frame.pts = round(times[number] * 1000) if times else number
                frame.time_base = stream.codec_context.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def audio_only(tmp_path: Path) -> Path:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000, layout="mono")
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 8000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
