"""Goes through cases, says what is going on, and keeps what was measured if one breaks off."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vidseg.files import make_folder

from .case import Case
from .measure import Figure, MeasureError, measure
from .report import format_figures, write_figures

__all__ = ["run"]


def run(cases: Sequence[Case], *, repeats: int | None = None, json_file: Path | None = None) -> int:
    """Measures the cases; those whose peer is not there are left out, with what to do about it.

    Args:
        cases: what to run.
        repeats: repetitions of each side; None takes those of each case.
        json_file: where the figures go, rewritten after every case.

    Returns:
        The exit code, 1 if a bar is missed or a case broke off.

    Raises:
        UserError: if the file cannot be written.
    """
    figures: list[Figure] = []
    skipped: dict[str, str] = {}
    failed = False
    if json_file is not None:
        make_folder(json_file.parent, "the folder of --json")
    for case in cases:
        if lacks := case.missing():
            skipped[case.name] = "; ".join(lacks)
            print(f"{case.name} skipped: {skipped[case.name]}", file=sys.stderr)
            continue
        print(f"{case.name}: {case.about}; peer: {case.peer}", file=sys.stderr)
        try:
            figures += measure(case, repeats=repeats)
        except MeasureError as error:
            failed = True
            skipped[case.name] = str(error)
            print(f"error: {error}", file=sys.stderr)
        if json_file is not None:
            write_figures(json_file, figures, skipped)
    if figures:
        print(format_figures(figures))
    return int(failed or not all(figure.reached for figure in figures))
