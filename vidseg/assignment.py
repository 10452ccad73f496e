"""SciPy's optimal assignment, without the rest of ``scipy.optimize``.

Importing that package takes 0.3 seconds and 35 MiB for dozens of solvers, of which a model needs
one function of one extension module. Where that module cannot be found alone, the package is
imported as usual.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["linear_sum_assignment"]


def _load_alone() -> ModuleType | None:
    scipy = importlib.util.find_spec("scipy")
    for folder in (scipy and scipy.submodule_search_locations) or ():
        for suffix in EXTENSION_SUFFIXES:
            file = Path(folder) / "optimize" / f"_lsap{suffix}"
            spec = importlib.util.spec_from_file_location("scipy.optimize._lsap", file)
            if file.is_file() and spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    return None


def _find() -> Callable[..., tuple[Any, Any]]:
    try:
        alone = getattr(_load_alone(), "linear_sum_assignment", None)
    except ImportError:
        alone = None
    if alone is not None:
        return alone
    from scipy.optimize import linear_sum_assignment as public

    return public


linear_sum_assignment = _find()
"""``scipy.optimize.linear_sum_assignment``: rows and columns of the cheapest assignment."""
