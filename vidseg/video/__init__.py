"""Reading, writing and drawing on video."""

from . import draw, explain, io, strip

__all__ = ["draw", "explain", "io", "strip"]
