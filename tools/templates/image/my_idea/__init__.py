"""MyIdea: a backbone for pictures.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register the
backbone when a model is built.
"""

from __future__ import annotations

from .config import add_config

__all__ = ["COMPONENTS", "add_config"]

COMPONENTS = ("backbone",)
