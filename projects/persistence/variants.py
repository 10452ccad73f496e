"""What the generated clips of each variant look like, as numbers.

Lengths are in pixels of a 64-pixel frame, times in frames of a 16-frame clip.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidseg.errors import UserError, nearest

__all__ = ["RED", "SPLITS", "VARIANTS", "WHITE", "Variant", "find_variant"]

SPLITS = ("train", "val", "test")
"""Names of the splits; their order numbers the seeds."""

WHITE = (1.0, 1.0, 1.0)
RED = (1.0, 0.12, 0.12)


@dataclass(frozen=True)
class Variant:
    """One kind of generated clip.

    Args:
        number: of the variant, a part of the seeds.
        colors: ``"same"``: all white; ``"class"``: white if persistent, else red; ``"random"``: any
            hue, independent of the class.
        agreement: share of the objects of training and validation clips, and of test clips, that
            have the colour of their class; only for ``"class"``.
        gap_share: share of the persistent objects that are hidden for a while.
        gap_frames: shortest and longest such time.
        transient_frames: shortest and longest time that a transient object is there.
        static_blobs: largest number of blobs that never move.
        flickering_blobs: largest number of blobs that come and go in one place.
        occluders: largest number of bars in front of everything.
        faint_share: share of the appearances that are too faint to be detected.
    """

    number: int
    colors: str = "same"
    agreement: tuple[float, float] = (1.0, 1.0)
    gap_share: float = 0.3
    gap_frames: tuple[int, int] = (1, 2)
    transient_frames: tuple[int, int] = (2, 8)
    static_blobs: int = 0
    flickering_blobs: int = 0
    occluders: int = 0
    faint_share: float = 0.0


VARIANTS = {
    "coloured": Variant(0, colors="class"),
    "same": Variant(1),
    "random": Variant(2, colors="random"),
    "conflict": Variant(3, colors="class", agreement=(0.9, 0.1)),
    "distractor": Variant(4, static_blobs=3, flickering_blobs=3, occluders=2, faint_share=0.1),
    "longgap": Variant(5, gap_share=0.8, gap_frames=(2, 6), transient_frames=(2, 10)),
}
"""The variants by name.

Validation clips of ``conflict`` are like its training clips, as nobody could choose a checkpoint by
clips that are not known yet.
"""


def find_variant(name: str) -> Variant:
    """Gives the variant of a name.

    Raises:
        UserError: if there is none; names the nearest.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    close = nearest(name, VARIANTS) or VARIANTS
    raise UserError(f"there is no variant {name!r} of the clips; nearest: {', '.join(close)}")
