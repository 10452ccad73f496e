"""The table of faults as a page for people; ``python -m tests.faults.table`` writes it anew."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from tests.faults import (  # noqa: F401 (fill it)
    checkpoints,
    codes,
    commands,
    data,
    disks,
    frame_labels,
    kills,
    persistence,
    slots,
    training,
)
from tests.faults.ground import FAULTS, Fault

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_HEAD = """# What happens when something breaks

Every row is planted by a test of `tests/faults`, which runs the command line on it and checks the
message, the exit code and what survived. "…" stands for paths, numbers and reasons.
"""


def as_markdown() -> str:
    """Lays the table out, a heading for each group."""
    parts = [_HEAD]
    for group, faults in itertools.groupby(FAULTS, key=lambda fault: fault.group):
        rows = "\n".join(map(_row, faults))
        head = "| Fault | Message | Exit code | What survives |\n|:--|:--|--:|:--|"
        parts.append(f"## {group}\n\n{head}\n{rows}\n")
    return "\n".join(parts)


def _row(fault: Fault) -> str:
    survivor = (fault.survivor.__doc__ or "").splitlines()[0]
    return f"| {fault.name} | {_readable(fault.says)} | {fault.code} | {survivor} |"


def _readable(pattern: str) -> str:
    """Turns a regular expression into the words that it looks for."""
    text = re.sub(r"\([^()|]*(\|[^()|]*)+\)|\.\*|\\[dw]\+?", "…", pattern)
    text = text.split("|")[0]
    text = re.sub(r"\\(.)", r"\1", text)
    return re.sub(r"(…\s?)+…", "…", text).strip()


if __name__ == "__main__":
    PAGE.write_text(as_markdown())
