"""Features in ``.npy``, ``.npz`` and ``.pt`` files, read without running a stranger's code.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import DataError

__all__ = ["SUFFIXES", "feature_shape", "read_features"]

SUFFIXES = (".npy", ".npz", ".pt")
"""Ends of the names of files that can be read."""

_USUAL_KEY = "features"  # of an archive with several arrays of which none is named
_NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class _Array:
    """An array of which only shape and type are known so far."""

    shape: tuple[int, ...]
    is_numeric: bool
    load: Callable[[], np.ndarray]


def feature_shape(path: str | Path, *, key: str = "", transposed: bool = False) -> tuple[int, int]:
    """Gives (T, D) of a file; of its content no more is read than that takes.

    Args:
        path: of a ``.npy``, ``.npz`` or ``.pt`` file.
        key: of the array in a ``.npz`` file or a ``.pt`` file with a dict; ``""``: the only one, or
            the one called ``features``.
        transposed: whether the file holds (D, T).

    Raises:
        DataError: if the file is missing, damaged, pickled or holds no matrix of real numbers with
            at least one frame; names the file.
    """
    return _shape(_open(Path(path), key), path, transposed)


def read_features(
    path: str | Path,
    start: int = 0,
    stop: int | None = None,
    *,
    key: str = "",
    transposed: bool = False,
) -> np.ndarray:
    """Reads frames ``start`` to ``stop`` of a file; a ``.npy`` or ``.pt`` is not read beyond them.

    Args:
        path: of the file; see ``feature_shape``.
        start: first frame.
        stop: frame after the last; all that are left if None.
        key: see ``feature_shape``.
        transposed: see ``feature_shape``.

    Returns:
        float32 ``(T, D)``, a copy; whatever is no finite number is still in it.

    Raises:
        DataError: as ``feature_shape``.
    """
    array = _open(Path(path), key)
    _shape(array, path, transposed)
    try:
        content = array.load()
        rows = (content.T if transposed else content)[start:stop]
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is told
            return np.array(rows, dtype=np.float32, order="C")
    except Exception as error:
        raise _unreadable(path, error) from error


def _shape(array: _Array, path: str | Path, transposed: bool) -> tuple[int, int]:
    if not array.is_numeric:
        raise DataError(f"{path} holds no real numbers")
    if len(array.shape) != 2:
        form = "(features, frames)" if transposed else "(frames, features)"
        raise DataError(f"{path} has the shape {array.shape}, expected {form}")
    num_frames, dim = reversed(array.shape) if transposed else array.shape
    if not num_frames:
        raise DataError(f"{path} has no frames: its shape is {array.shape}")
    if not dim:
        raise DataError(f"{path} has no features: its shape is {array.shape}")
    return num_frames, dim


def _open(path: Path, key: str) -> _Array:
    readers = {".npy": _open_npy, ".npz": _open_npz, ".pt": _open_pt}
    read = readers.get(path.suffix)
    if read is None:
        raise DataError(f"{path} is no feature file; expected one of {', '.join(SUFFIXES)}")
    try:
        return read(path, key)
    except FileNotFoundError:
        raise DataError(f"the feature file {path} is missing") from None
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> DataError:
    """Gives the message; a damaged file makes the parsers raise whatever they come upon."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or "it is empty"
    return DataError(f"{path} cannot be read, it may be damaged or incomplete: {reason}")


def _open_npy(path: Path, key: str) -> _Array:
    with path.open("rb") as file:
        magic = file.read(len(_NPY_MAGIC))
        if magic != _NPY_MAGIC:
            raise DataError(f"{path} is no .npy file: {_what_it_is(magic)}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise DataError(f"{path} holds pickled objects, which are refused") from None
    return _Array(array.shape, _is_numeric(array.dtype), lambda: array)


def _what_it_is(magic: bytes) -> str:
    if not magic:
        return "it is empty"
    # Every protocol from 2 on begins with this byte.
    return "it is pickled, which is refused" if magic[:1] == b"\x80" else "it begins otherwise"


def _open_npz(path: Path, key: str) -> _Array:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        name = _choose(names, key, path)
        with archive.open(f"{name}.npy") as member:
            shape, dtype = _read_header(member)
        size = archive.getinfo(f"{name}.npy").file_size
    if dtype.hasobject:
        raise DataError(f"{path} holds pickled objects, which are refused")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > size:
        raise DataError(f"{path}: the array {name} is shorter than its header says")

    def load() -> np.ndarray:
        with np.load(path, allow_pickle=False) as content:
            array: np.ndarray = content[name]
            return array

    return _Array(shape, _is_numeric(dtype), load)


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:  # field names beyond Latin-1, which no matrix has
        raise ValueError(f"arrays of version {version} hold no matrix")
    shape, _, dtype = readers[version](file)
    return tuple(shape), dtype


def _open_pt(path: Path, key: str) -> _Array:
    import torch  # on demand: names of data sets are known without it

    def load(*, mmap: bool) -> Any:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    try:
        # Files in the format of torch before 1.6 are no archives and cannot be mapped.
        content = load(mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise DataError(f"{path} holds more than tensors, or is damaged; it is refused") from None
    if isinstance(content, dict):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
        content = tensors[_choose(list(tensors), key, path)]
    if not isinstance(content, torch.Tensor):
        raise DataError(f"{path} holds a {type(content).__name__}, expected a tensor")
    tensor = content.detach()
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise DataError(f"{path} holds a sparse or quantised tensor, expected a dense one")
    is_numeric = not tensor.is_complex() and tensor.dtype is not torch.bool
    return _Array(tuple(tensor.shape), is_numeric, lambda: _to_numpy(tensor))


def _to_numpy(tensor: Any) -> np.ndarray:
    # NumPy has no bfloat16; the others stay as they are, so that only some frames are read.
    array: np.ndarray = (tensor.float() if tensor.dtype.itemsize < 4 else tensor).numpy()
    return array


def _choose(names: list[str], key: str, path: Path) -> str:
    """Gives the name of the array to read among those of a file."""
    listed = ", ".join(sorted(names)) or "none"
    if key:
        if key not in names:
            raise DataError(f"{path} has no array {key!r}; found: {listed}")
        return key
    if len(names) == 1:
        return names[0]
    if _USUAL_KEY in names:
        return _USUAL_KEY
    raise DataError(
        f"{path} holds {len(names)} arrays ({listed}), of which none is called {_USUAL_KEY!r}; "
        "name one as 'key' in the index"
    )


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return bool(np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating))
