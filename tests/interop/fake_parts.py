"""Just as much of detectron2's containers and catalogs as the bridge touches, without it."""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

__all__ = ["install", "storage"]


class Instances:
    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        self.__dict__.update(image_size=image_size, fields={})
        for name, value in fields.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        assert all(len(value) == len(other) for other in self.fields.values()), name
        self.fields[name] = value

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__["fields"]:
            raise AttributeError(f"Cannot find field '{name}' in the given Instances!")
        return self.__dict__["fields"][name]

    def has(self, name: str) -> bool:
        return name in self.fields

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))


class Boxes:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.to(torch.float32).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.tensor)


class BitMasks:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.to(torch.bool)
        assert self.tensor.ndim == 3

    def __len__(self) -> int:
        return len(self.tensor)


class PolygonMasks:
    def __init__(self, polygons: list[list[Any]]) -> None:
        self.polygons = polygons

    def __len__(self) -> int:
        return len(self.polygons)


class ImageList:
    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes


class BoxMode(enum.IntEnum):
    XYXY_ABS = 0
    XYWH_ABS = 1


class _Metadata(types.SimpleNamespace):
    def set(self, **values: Any) -> None:
        for name, value in values.items():
            assert getattr(self, name, value) == value, name  # as theirs
            setattr(self, name, value)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


class _MetadataCatalog(dict[str, _Metadata]):
    def get(self, name: str, default: Any = None) -> _Metadata:
        return self.setdefault(name, _Metadata(name=name))


class _DatasetCatalog(dict[str, Callable[[], Any]]):
    def register(self, name: str, function: Callable[[], Any]) -> None:
        assert name not in self, f"Dataset '{name}' is already registered!"
        self[name] = function

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]()

    def list(self) -> list[str]:
        return [*self]


class _Storage:
    def __init__(self, iteration: int) -> None:
        self.iter = iteration
        self.scalars: dict[str, float] = {}

    def put_scalar(self, name: str, value: float) -> None:
        assert isinstance(value, float)
        self.scalars[name] = value


_OPEN: list[_Storage] = []


@contextmanager
def storage(iteration: int = 0) -> Iterator[_Storage]:
    """Opens a storage, as a trainer of theirs does."""
    _OPEN.append(_Storage(iteration))
    yield _OPEN[-1]
    _OPEN.pop()


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts new parts where an import of detectron2's looks for them."""
    parts: dict[str, dict[str, Any]] = {
        "": {},
        ".structures": {
            kind.__name__: kind
            for kind in (Instances, Boxes, BitMasks, PolygonMasks, ImageList, BoxMode)
        },
        ".data": {"DatasetCatalog": _DatasetCatalog(), "MetadataCatalog": _MetadataCatalog()},
        ".utils": {},
        ".utils.events": {
            "has_event_storage": lambda: bool(_OPEN),
            "get_event_storage": lambda: _OPEN[-1],
        },
    }
    for name, content in parts.items():
        module = types.ModuleType(f"detectron2{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
