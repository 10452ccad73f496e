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
    # What stands for it in a test has no spec.
    if sys.modules.get("detectron2") is not None:
        return True
    return importlib.util.find_spec("detectron2") is not None


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
        raise ImportError(f"detectron2 is there, but cannot be imported: {error}") from error
