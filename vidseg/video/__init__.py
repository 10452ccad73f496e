"""Reading, writing and drawing on video."""

from . import draw, io, strip

__all__ = ["draw", "io", "strip"]
