"""MyIdea: what happens in which frame of a sequence of features.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register data
sets, mapper, model and evaluator when one is used.
"""

from __future__ import annotations

from .config import add_config

__all__ = ["COMPONENTS", "add_config"]

COMPONENTS = ("data_set", "mapper", "model", "evaluator")
