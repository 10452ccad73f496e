"""Reading model-zoo pickles without running anything that they hold.

A pickle is a program that may call what it can import. This reader lets it import stand-ins only:
plain containers, and recorders that write down how arrays and tensors are rebuilt. These are then
made here, from bytes, a numeric type and a checked layout. The bytes of a tensor are a file of
torch again, which torch reads without running anything, too (``weights_only``).
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import DataError

__all__ = ["load_with_stand_ins", "read_pickle"]

_MAX_SHOWN = 120
_UNCHANGED = "changes what reads it, which is not done"


def read_pickle(path: Path) -> Any:
    """Reads a ``.pkl`` file of arrays, tensors and plain containers; nothing in it is executed.

    Tensors come onto the CPU, parameters as plain tensors. Arrays of anything but numbers, such as
    objects or text, come back as None.

    Raises:
        DataError: if the file cannot be read, is damaged, or names any other class or function.
    """
    try:
        with open(path, "rb") as file:
            return _with_arrays(_ArrayUnpickler(file, encoding="latin1").load())
    except DataError as error:
        raise DataError(f"{path} {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = str(error).splitlines()[0][:_MAX_SHOWN] if isinstance(error, EOFError) else ""
        raise DataError(
            f"{path} is damaged or no pickle{f' ({reason})' if reason else ''}"
        ) from error


def load_with_stand_ins(path: Path) -> Any:
    """Reads a file of torch that holds numbers or arrays of NumPy or nodes of a config, too.

    Torch reads it, without running anything but the stand-ins. Nodes come back as dicts.

    Raises:
        pickle.UnpicklingError: if the file asks for more than that.
    """
    named: list[Any] = [(made, ".".join(name)) for name, made in _STAND_INS.items()]
    own = [pair for pair in named if not pair[1].startswith(("torch.", "collections."))]
    with torch.serialization.safe_globals(own):
        return _with_arrays(torch.load(path, map_location="cpu", weights_only=True))


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise DataError(
                f"asks for {module}.{name}, which is not loaded: only arrays, tensors and plain "
                "containers are read from a .pkl file"
            )
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("refers to data outside the file, which is not loaded")


class _Dtype:
    """Records the type of an array."""

    def __init__(self, code: str = "", *_: Any) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]
        if state[2] is not None or state[3] is not None or state[4] is not None:
            self.code = ""  # a subarray, or a record of fields

    def resolved(self) -> np.dtype[Any] | None:
        """Gives the type; None for anything but plain numbers."""
        if not isinstance(self.code, str) or self.order not in ("<", ">", "=", "|"):
            return None
        # Only a kind and a size: the full syntax of type strings can name records and objects.
        if self.code[:1] not in "?biufc" or not self.code[1:].isdigit():
            return None
        try:
            return np.dtype(f"{self.order}{self.code}")
        except TypeError:
            return None


class _Array:
    """Records the shape, type and bytes of an array."""

    def __init__(self, *_: Any) -> None:
        self.shape: Any = (0,)
        self.dtype: Any = None
        self.in_columns = False
        self.content: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.in_columns, self.content = state

    def resolved(self) -> np.ndarray[Any, Any] | None:
        """Gives the array, with memory of its own; None for anything but plain numbers."""
        dtype = self.dtype.resolved() if isinstance(self.dtype, _Dtype) else None
        if dtype is None:
            return None
        content = self.content
        if isinstance(content, str):  # bytes as Python 2 wrote them
            content = content.encode("latin1")
        if not isinstance(content, bytes | bytearray):  # of a number, bytes() makes that many
            raise TypeError("the content of an array is not bytes")
        values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
        return values.reshape(self.shape, order="F" if self.in_columns else "C")


def _array_of_bytes(content: Any, dtype: Any, shape: Any, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: Any, content: Any = b"") -> _Array:
    return _array_of_bytes(content, dtype, (), "C")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise DataError("encodes text in an unusual way, which is not done")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


class _Storage:
    """Records the memory of one or several tensors, a file of torch inside the pickle."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self._values: Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        raise DataError(_UNCHANGED)

    def resolved(self) -> Tensor:
        """Gives all values in a row; the same memory whenever it is asked for."""
        if self._values is None:
            try:
                storage = torch.load(
                    io.BytesIO(self._content), map_location="cpu", weights_only=True
                )
            except pickle.UnpicklingError as error:
                raise DataError(
                    "holds a tensor that is damaged or asks for more than numbers, which is not "
                    "loaded"
                ) from error
            if not isinstance(storage, torch.storage.TypedStorage):
                raise TypeError("the memory of a tensor is something else")
            self._values = torch.empty(0, dtype=storage.dtype).set_(storage)  # type: ignore
            self._content = b""
        return self._values


class _Tensor:
    """Records where the values of a tensor lie in a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        self._storage = storage
        self._place = size, stride, offset

    def __setstate__(self, state: Any) -> None:
        raise DataError(_UNCHANGED)

    def resolved(self) -> Tensor:
        """Gives the tensor."""
        if not isinstance(self._storage, _Storage):
            raise TypeError("a tensor without memory")
        values = self._storage.resolved()
        view = values.as_strided(*self._place)  # refuses what lies outside
        if view.numel() > values.numel():
            raise ValueError("a tensor with more values than its memory")
        return view.contiguous()


def _parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise DataError("holds a parameter that is no tensor, which is not loaded")
    return tensor


class _Node:
    """Stands for the node of a config, which comes back as a dict."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _Call:
    """A function that a pickle may call, but not change: ``BUILD`` sets attributes of anything."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise DataError(_UNCHANGED)


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _Call(_encoded),
    ("__builtin__", "bytes"): _Call(_no_bytes),  # how older protocols spell b""
    ("builtins", "bytes"): _Call(_no_bytes),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("torch.storage", "_load_from_bytes"): _Call(_Storage),
    ("torch._utils", "_rebuild_tensor"): _Call(_Tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_Tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    **{
        (module, "CfgNode"): _Node
        for module in ("yacs.config", "fvcore.common.config", "detectron2.config.config")
    },
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Call(_scalar)),
            ("numeric", "_frombuffer", _Call(_array_of_bytes)),
        )
    },
}


def _with_arrays(content: Any, done: dict[int, Any] | None = None) -> Any:
    """Puts arrays and tensors in the place of their records, in containers of any depth.

    What is shared is done once: a few bytes of pickle can hold one list billions of times.
    """
    done = {} if done is None else done
    if id(content) in done:
        return done[id(content)]
    made = content
    if isinstance(content, _Array | _Tensor):
        made = content.resolved()
    elif isinstance(content, dict):
        made = {key: _with_arrays(value, done) for key, value in content.items()}
    elif isinstance(content, list | tuple):
        made = [_with_arrays(value, done) for value in content]
    done[id(content)] = made
    return made
