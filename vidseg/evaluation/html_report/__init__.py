"""The report of an evaluation: one html file that opens offline.

It holds figures, tables, curves, a ranking of the videos, and a player with truth and prediction
side by side. A payload says what to show; ``write_report`` puts it into the page.
"""

from __future__ import annotations

import os
from pathlib import Path

from vidseg.evaluation.report import write_text

from .label_maps import davis_report, discovery_report, vps_report, vss_report
from .page import render
from .payload import Limits, Payload
from .tracks import tracking_report, ytvis_report

__all__ = [
    "Limits",
    "Payload",
    "davis_report",
    "discovery_report",
    "tracking_report",
    "vps_report",
    "vss_report",
    "write_report",
    "ytvis_report",
]


def write_report(path: str | os.PathLike[str], payload: Payload) -> None:
    """Writes a report, whole or not at all, with its folder.

    Args:
        path: html file; an existing one is replaced.
        payload: what one of the functions of this package gave.

    Raises:
        DataError: if it cannot be written.
    """
    write_text(Path(path), render(payload))
