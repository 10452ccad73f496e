from __future__ import annotations

import contextlib
import importlib
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import resample_poly

from tests.datasets.wavs import EXTENSIBLE, write_wav
from vidseg.errors import DataError


@pytest.fixture
def wav_files() -> Any:
    return importlib.import_module("wav_files")


def _sound(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, count)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("kind", "tag", "step"),
    [
        ("u1", None, 2**-6),
        ("i2", None, 2**-14),
        ("i3", None, 2**-22),
        ("i3", EXTENSIBLE, 2**-22),
        ("i4", None, 2**-30),
        ("f4", None, 2**-23),
        ("f4", EXTENSIBLE, 2**-23),
        ("f8", None, 0),
    ],
)
def test_sample_formats(
    tmp_path: Path, wav_files: Any, kind: str, tag: int | None, step: float, channels: int
) -> None:
    sound = _sound(600)
    path = write_wav(tmp_path / "a.wav", sound, kind=kind, tag=tag, channels=channels)
    file = wav_files.WavFile.open(path)
    assert file.num_samples(8000) == 600 // channels
    mixed = sound.reshape(-1, channels).mean(1)
    assert file.read(8000, 7, 100) == pytest.approx(mixed[7:107], abs=step)


def test_chunks_before_the_samples_are_skipped(tmp_path: Path, wav_files: Any) -> None:
    odd = b"LIST" + struct.pack("<I", 5) + b"INFO!" + b"\0"  # padded to an even length
    path = write_wav(tmp_path / "a.wav", _sound(50), before=odd)
    assert wav_files.WavFile.open(path).num_frames == 50


def test_length_that_a_pipe_left_open(tmp_path: Path, wav_files: Any) -> None:
    path = write_wav(tmp_path / "a.wav", _sound(50), announced=0xFFFFFFFF)
    assert wav_files.WavFile.open(path).num_frames == 50


@pytest.mark.parametrize(
    ("old", "new"), [(44100, 8000), (11025, 8000), (48000, 8000), (8000, 16000), (22050, 48000)]
)
def test_parts_are_those_of_the_whole(tmp_path: Path, wav_files: Any, old: int, new: int) -> None:
    sound = _sound(old)
    file = wav_files.WavFile.open(write_wav(tmp_path / "a.wav", sound, rate=old, kind="f8"))
    common = math.gcd(old, new)
    whole = resample_poly(sound, new // common, old // common)
    assert file.num_samples(new) == len(whole)
    for start, count in ((0, 100), (new // 3, 777), (len(whole) - 50, 50), (0, len(whole))):
        part = file.read(new, start, count)
        np.testing.assert_allclose(part, whole[start : start + count], atol=1e-13)


def test_files_are_found_at_any_depth(tmp_path: Path, wav_files: Any) -> None:
    for name in ("b/x.WAV", "b/c/y.wav", "a.wav", ".hidden.wav", ".cache/z.wav", "b/notes.txt"):
        write_wav(tmp_path / name, _sound(10))
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    assert wav_files.find_wav_files(tmp_path) == ["a.wav", "b/c/y.wav", "b/x.WAV"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"some text that is no sound", "is not a wav file"),
        (b"RIFF\x24\0\0\0WAVE", "there are no samples"),
        (b"RIFF\x24\0\0\0WAVEdata\x04\0\0\0abcd", "does not say what its samples are"),
    ],
)
def test_what_is_no_wav_file(tmp_path: Path, wav_files: Any, content: bytes, message: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.wav .*{message}"):
        wav_files.WavFile.open(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"announced": 999}, "is cut off: it has 100 of 999 bytes"),
        ({"announced": 0}, "holds no sound"),
        ({"tag": 7, "kind": "u1"}, "convert it"),  # mu-law
        ({"rate": 0}, "0 Hz"),
        ({"channels": 0}, "0 channels"),
    ],
)
def test_damaged_headers(
    tmp_path: Path, wav_files: Any, options: dict[str, Any], message: str
) -> None:
    path = write_wav(tmp_path / "a.wav", _sound(50), **options)
    with pytest.raises(DataError, match=message):
        wav_files.WavFile.open(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_numbers_that_are_no_sound(tmp_path: Path, wav_files: Any, value: float) -> None:
    sound = _sound(50)
    sound[33] = value
    with pytest.raises(DataError, match="no sound"):
        wav_files.WavFile.open(write_wav(tmp_path / "a.wav", sound, kind="f4"))


def test_changed_bytes_never_break_the_reader(tmp_path: Path, wav_files: Any) -> None:
    rng = np.random.default_rng(0)
    path = write_wav(tmp_path / "a.wav", _sound(300), kind="i3", tag=EXTENSIBLE, channels=2)
    whole = path.read_bytes()
    read = 0
    for _ in range(200):
        content = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, min(80, len(content)) or 1, 3)[: len(content)]:
            content[place] = rng.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            file = wav_files.WavFile.open(path)
            assert len(file.read(file.rate, 0, file.num_frames)) <= len(content)
            read += 1
    assert 20 < read < 180
