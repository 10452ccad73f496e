"""Puts the package ``fake/detectron2`` in the place of detectron2 for the time of a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vidseg.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY

__all__ = ["installed"]

_FOLDER = Path(__file__).parent / "fake"


@contextmanager
def installed() -> Iterator[None]:
    """Hides the real package, imported or not, and forgets what vidseg took from the fake one."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY):
            own = {name: part for name, part in registry if not name.startswith("d2/")}
            patch.setattr(registry, "_objects", own)
        for name in _imported():
            patch.delitem(sys.modules, name)
        patch.syspath_prepend(_FOLDER)
        try:
            yield
        finally:
            for name in _imported():
                del sys.modules[name]


def _imported() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "detectron2"]
