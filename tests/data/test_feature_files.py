"""Arrays in files: what can be read is read exactly, everything else is refused in a sentence."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg.data.feature_files import feature_shape, read_features
from vidseg.errors import DataError


class Stranger:
    """Writes a file when it is unpickled."""

    path = ""

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def features(num_frames: int = 7, dim: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num_frames, dim)).astype(np.float32)


WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "a.npy": np.save,
    "f.npy": lambda path, x: np.save(path, np.asfortranarray(x)),
    "one.npz": lambda path, x: np.savez(path, x),
    "packed.npz": lambda path, x: np.savez_compressed(path, features=x, other=x[0]),
    "a.pt": lambda path, x: torch.save(torch.from_numpy(x), path),
    "dict.pt": lambda path, x: torch.save({"x": torch.from_numpy(x), "rate": 50}, path),
    "old.pt": lambda path, x: torch.save(
        torch.from_numpy(x), path, _use_new_zipfile_serialization=False
    ),
    "parameter.pt": lambda path, x: torch.save(torch.nn.Parameter(torch.from_numpy(x)), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_read(name: str, tmp_path: Path) -> None:
    x = features()
    WRITERS[name](tmp_path / name, x)
    assert feature_shape(tmp_path / name) == x.shape
    assert feature_shape(tmp_path / name, transposed=True) == x.shape[::-1]
    for start, stop in ((0, None), (2, 5), (6, 7)):
        read = read_features(tmp_path / name, start, stop)
        assert read.dtype == np.float32
        assert read.flags.c_contiguous
        assert read.flags.writeable
        assert np.array_equal(read, x[start:stop])
    assert np.array_equal(read_features(tmp_path / name, 1, 3, transposed=True), x.T[1:3])


@pytest.mark.parametrize("dtype", ["float16", "float64", "int16", "uint8", ">f4"])
def test_numbers_become_float32(dtype: str, tmp_path: Path) -> None:
    x = (features() * 10).round().astype(dtype)
    np.save(tmp_path / "x.npy", x)
    assert np.array_equal(read_features(tmp_path / "x.npy"), x.astype(np.float32))


def test_bfloat16_is_read(tmp_path: Path) -> None:
    x = torch.from_numpy(features()).bfloat16()
    torch.save(x, tmp_path / "x.pt")
    assert np.array_equal(read_features(tmp_path / "x.pt", 1), x[1:].float().numpy())


def test_array_is_chosen_by_key(tmp_path: Path) -> None:
    x = features()
    np.savez(tmp_path / "x.npz", left=x, right=x + 1)
    torch.save({"left": torch.from_numpy(x), "right": torch.from_numpy(x + 1)}, tmp_path / "x.pt")
    for name in ("x.npz", "x.pt"):
        assert np.array_equal(read_features(tmp_path / name, key="right"), x + 1)
        with pytest.raises(DataError, match=r"x\.\w+ has no array 'up'; found: left, right"):
            read_features(tmp_path / name, key="up")
        with pytest.raises(DataError, match=r"holds 2 arrays \(left, right\).*'key' in the index"):
            read_features(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4)), r"has no frames: its shape is \(0, 4\)"),
        (np.zeros((4, 0)), r"has no features"),
        (np.zeros(4), r"has the shape \(4,\), expected \(frames, features\)"),
        (np.zeros((2, 3, 4)), r"has the shape \(2, 3, 4\)"),
        (np.zeros((2, 3), dtype=complex), "holds no real numbers"),
        (np.zeros((2, 3), dtype=bool), "holds no real numbers"),
        (np.full((2, 3), "text"), "holds no real numbers"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_other_arrays_are_refused(
    suffix: str, array: np.ndarray, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        if array.dtype.kind == "U":
            pytest.skip("tensors hold no text")
        torch.save(torch.from_numpy(array), path)
    else:
        (np.save if suffix == ".npy" else np.savez)(path, array)
    for look in (feature_shape, read_features):
        with pytest.raises(DataError, match=rf"x{suffix} {message}"):
            look(path)


def test_shape_is_told_as_it_lies_in_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 0)))
    with pytest.raises(DataError, match=r"has no frames: its shape is \(4, 0\)"):
        feature_shape(tmp_path / "x.npy", transposed=True)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "f.npy"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.98])
def test_cut_off_files_are_told(name: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, features(300, 8))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for look in (feature_shape, read_features):
        with pytest.raises(DataError, match=name) as caught:
            look(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_random_bytes_are_told(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    heads = (b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x76\x00", b"PK\x03\x04", b"\x80\x02")
    for number in range(300):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(heads[number % len(heads)] + rng.bytes(int(rng.integers(400))))
        with pytest.raises(DataError, match=path.name):
            read_features(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    Stranger.path = str(tmp_path / "was_here")
    array = np.array([[Stranger()]], dtype=object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "b.npz", array)
    torch.save(Stranger(), tmp_path / "c.pt")
    torch.save(Stranger(), tmp_path / "d.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "e.npy").write_bytes(pickle.dumps(Stranger()))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=rf"{path.name}.*refused"):
            read_features(path)
    assert not Path(Stranger.path).exists()


def test_header_that_promises_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 100)))
    content = (tmp_path / "x.npy").read_bytes()
    zeros = b"0" * 10
    huge = content.replace(b"(2, 100), }" + b" " * 10, b"(2" + zeros + b", 100), }")
    assert huge != content
    (tmp_path / "x.npy").write_bytes(huge)
    with pytest.raises(DataError, match=r"x\.npy cannot be read, it may be damaged"):
        read_features(tmp_path / "x.npy")


def test_missing_and_foreign_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the feature file .*none\.npy is missing"):
        read_features(tmp_path / "none.npy")
    with pytest.raises(DataError, match=r"a\.csv is no feature file; expected one of \.npy, \.npz"):
        read_features(tmp_path / "a.csv")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(DataError, match=r"folder\.npy cannot be read"):
        read_features(tmp_path / "folder.npy")
    torch.save([torch.zeros(2, 2)], tmp_path / "list.pt")
    with pytest.raises(DataError, match=r"list\.pt holds a list, expected a tensor"):
        read_features(tmp_path / "list.pt")
    torch.save(torch.zeros(2, 2).to_sparse(), tmp_path / "sparse.pt")
    with pytest.raises(DataError, match=r"sparse\.pt holds a sparse"):
        read_features(tmp_path / "sparse.pt")
