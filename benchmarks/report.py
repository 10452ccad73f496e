"""Shows figures as a table and keeps them as json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vidseg.errors import UserError
from vidseg.files import write_atomically

from .case import Case
from .measure import Figure

__all__ = ["format_cases", "format_figures", "write_figures"]

_UNITS = {"cpu": "CPU s", "peak": "MiB"}
_SIGNS = {"cpu": ">=", "peak": "<="}


def format_cases(groups: Mapping[str, Iterable[Case]]) -> str:
    """Lists all cases with their peers and what is promised."""
    lines = []
    for group, cases in groups.items():
        lines.append(group)
        for case in cases:
            bars = ", ".join(f"{q} {_SIGNS[q]} {bar:g}" for q, bar in case.bars.items())
            lines.append(f"  {case.name}: {case.about}; peer: {case.peer}; {bars}")
    return "\n".join(lines)


def format_figures(figures: Sequence[Figure]) -> str:
    """Gives a table of name, unit, ours, peer, ratio, spread and bar, one row a figure."""
    from tabulate import tabulate

    rows = [
        (
            figure.name,
            _UNITS[figure.quantity],
            f"{figure.ours:.4g}",
            f"{figure.peer:.4g}",
            f"{figure.ratio:.2f}",
            f"{figure.spread[0]:.2f} to {figure.spread[1]:.2f}",
            f"{_SIGNS[figure.quantity]} {figure.bar:g}{'' if figure.reached else ' missed'}",
        )
        for figure in figures
    ]
    header = ("name", "unit", "ours", "peer", "ratio", "spread", "bar")
    return str(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))


def write_figures(path: Path, figures: Sequence[Figure], skipped: Mapping[str, str]) -> None:
    """Writes all figures with their samples, and why cases are missing.

    Raises:
        UserError: if the file cannot be written.
    """
    content = {"figures": [figure.as_json() for figure in figures], "skipped": dict(skipped)}
    text = json.dumps(content, indent=2) + "\n"
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another file") from error
