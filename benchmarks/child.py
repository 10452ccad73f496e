"""Runs one side of one case in this process and prints what it used: ``child CASE SIDE``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from .catalog import select
from .measure import measure_call, prepare


def main(name: str, side: str) -> None:
    """Measures ``side`` (``ours`` or ``theirs``) of the case ``name``."""
    (case,) = select([name])
    usage = measure_call(prepare(getattr(case, side), case.warmups))
    print(json.dumps(asdict(usage)))


if __name__ == "__main__":
    main(*sys.argv[1:])
