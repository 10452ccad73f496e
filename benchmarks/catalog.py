"""Which cases exist; reading it imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from vidseg.errors import UserError, nearest

from .case import Case

__all__ = ["GROUPS", "groups", "select"]

GROUPS: dict[str, tuple[str, ...]] = {
    "dvis_daq": ("deformable", "frame_segmenter", "published", "video_length"),
    "ytvis": ("ytvis_eval",),
    "persistence": ("persistence",),
    "rqvae": ("rqvae_pooling", "rqvae_quantizer"),
    "slot_bert": ("slot_bert",),
    "fact_clip": ("fact_clip",),
    "switches": ("switches",),
}
"""The modules of this folder whose ``CASES`` make up each group."""


def groups() -> dict[str, list[Case]]:
    """Gives all cases by group."""
    return {
        group: [
            case
            for module in modules
            for case in importlib.import_module(f"{__package__}.{module}").CASES
        ]
        for group, modules in GROUPS.items()
    }


def select(names: Sequence[str]) -> list[Case]:
    """Gives the named cases, each once, in the catalogue's order; all of them for no names.

    Args:
        names: of groups or of cases.

    Raises:
        UserError: if there is neither a group nor a case of that name.
    """
    by_group = groups()
    cases = [case for members in by_group.values() for case in members]
    known = [*by_group, *(case.name for case in cases)]
    for name in names:
        if name not in known:
            near = ", ".join(nearest(name, known)) or ", ".join(known)
            raise UserError(f"there is no benchmark {name!r}; nearest: {near}")
    return [
        case
        for group, members in by_group.items()
        for case in members
        if not names or group in names or case.name in names
    ]
