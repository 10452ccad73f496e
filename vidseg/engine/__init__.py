"""Training, evaluation and everything that turns a config into a run.

The names are loaded on first use: ``vidseg.engine.chain`` plans a run before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Hook": "hooks",
    "Stage": "chain",
    "Trainer": "trainer",
    "evaluate_model": "evaluate",
    "plan_stages": "chain",
    "run_stages": "setup",
}
__all__ = ["Hook", "Stage", "Trainer", "evaluate_model", "plan_stages", "run_stages"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
