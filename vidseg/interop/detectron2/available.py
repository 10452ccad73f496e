"""Whether detectron2 can be imported, and the one place that imports it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

__all__ = ["available", "require"]

_INSTALL = (
    "install vidseg[detectron2], or put a checkout of "
    "https://github.com/facebookresearch/detectron2 on PYTHONPATH"
)


def available() -> bool:
    """Tells whether detectron2 is there, without importing it."""
    return "detectron2" in sys.modules or importlib.util.find_spec("detectron2") is not None


def require(name: str) -> ModuleType:
    """Imports a module of detectron2.

    Args:
        name: below ``detectron2``, as ``structures`` or ``utils.events``.

    Raises:
        ImportError: if detectron2, or what it needs itself, is absent; says how to get it.
    """
    try:
        return importlib.import_module(f"detectron2.{name}")
    except ImportError as error:
        if not available():
            raise ImportError(f"detectron2 is not installed; {_INSTALL}") from error
        missing = error.name or "detectron2._C, its compiled part"
        raise ImportError(f"detectron2 is there, but needs {missing}: {error}") from error
