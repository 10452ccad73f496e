#!/usr/bin/env python
"""Looks for what is wrong with data sets before a training finds out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.errors import UserError, nearest, run_command

if TYPE_CHECKING:
    from vidseg.data.checks import Findings

EXAMPLE = """examples:
  python tools/check_data.py my_set/instances.json
  python tools/check_data.py ytvis_2021_train ytvis_2021_val --quick
  python tools/check_data.py my_set/train.json my_set/val.json --json findings.json
  python tools/check_data.py --layout
  python tools/check_data.py --layout davis_2017 vipseg_val

A data set is whatever DATASETS.TRAIN takes: a name, a json file (YouTube-VIS, COCO, an index of
documents), a folder of videos or features, a file that a project reads. Several are also compared
with each other: name those of training first. What is found is listed worst first:

  error    training or evaluation would stop, or count wrong
  warning  it can be read, but is probably not meant
  note     it may be all right

Exit code 1: there are errors or warnings, or with --layout, a set that is named is not in its place
as a whole, or no set is.
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="DATASET", help="name or path")
    parser.add_argument(
        "--quick", action="store_true", help="read headers of pictures and feature files only"
    )
    parser.add_argument(
        "--show", type=_positive, default=5, metavar="N", help="findings of a kind to print (5)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all findings there; - prints them")
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="threads that decode (up to 8)"
    )
    parser.add_argument("--kinds", action="store_true", help="explain all kinds and leave")
    parser.add_argument(
        "--layout",
        action="store_true",
        help="show which public data sets are in their places, and what is missing: all, or those "
        "named",
    )
    args = parser.parse_args(argv)
    if not (args.names or args.kinds or args.layout):
        parser.error("name a data set, or give --kinds or --layout")
    return args


def main(argv: list[str]) -> int:
    """Checks, prints and writes."""
    args = parse(argv)
    from vidseg.data.checks import Effort, check_data_set, compare_data_sets

    if args.kinds:
        _print_kinds()
        return 0
    if args.layout:
        return _print_layouts(args.names)
    workers = args.workers or min(8, os.cpu_count() or 1)
    effort = Effort(is_quick=args.quick, workers=workers)
    checked = [check_data_set(name, effort) for name in dict.fromkeys(args.names)]
    compare_data_sets(checked)
    if args.json != "-":
        for findings in checked:
            print(_format(findings, args.show))
    if args.json:
        _write_json(args.json, checked)
    wrong = sum(f.number_of("error") + f.number_of("warning") for f in checked)
    return 1 if wrong else 0


def _format(findings: Findings, limit: int) -> str:
    from vidseg.data.checks import KINDS, SEVERITIES

    looked_at = ", ".join(f"{number} {word}" for word, number in findings.counts.items())
    lines = [f"{findings.data_set}: {looked_at or 'nothing could be looked at'}"]
    for name, found in findings.by_kind():
        kind = KINDS[name]
        lines.append(f"{kind.severity}: {name} ({len(found)}): {kind.meaning}")
        lines += [f"    {item}" for item in found[:limit]]
        if len(found) > limit:
            lines.append(f"    and {len(found) - limit} more; --show prints them")
    numbers = [(findings.number_of(severity), severity) for severity in SEVERITIES]
    lines.append(", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in numbers))
    return "\n".join(lines)


def _write_json(target: str, checked: Sequence[Findings]) -> None:
    from vidseg.files import write_atomically

    text = json.dumps([findings.to_json() for findings in checked], indent=1)
    if target == "-":
        print(text)
        return
    try:
        write_atomically(Path(target), lambda file: file.write(text.encode()))
    except FileNotFoundError:
        raise UserError(f"--json {target}: there is no such folder") from None


def _print_kinds() -> None:
    from vidseg.data.checks import KINDS

    width = max(map(len, KINDS))
    for name, kind in KINDS.items():
        print(f"{kind.severity:8}{name:{width + 2}}{kind.meaning}")


def _print_layouts(names: Sequence[str]) -> int:
    from vidseg.data import dataset_root
    from vidseg.data.checks import look_at_layout, public_layouts

    layouts = public_layouts()
    # a name may stand for all splits: davis, ytvis_2021
    chosen = {
        name: [one for one in layouts if one == name or one.startswith(f"{name}_")]
        for name in names
    }
    for name, found in chosen.items():
        if not found:
            close = ", ".join(nearest(name, layouts) or layouts)
            raise UserError(f"--layout {name}: no public data set is called so; known: {close}")
    shown = list(dict.fromkeys(chain.from_iterable(chosen.values()))) or list(layouts)
    root = dataset_root()
    print(f"below {root}:")
    states = []
    for name in shown:
        state, problem = look_at_layout(layouts[name], root)
        states.append(state)
        print(f"{state:8} {name}{problem and ': '}{problem}")
        if problem:
            print(textwrap.indent("\n".join(map(str, layouts[name].needs)), " " * 6))
            print(f"  to prepare it, {layouts[name].step}; see datasets/README.md")
    return 0 if (set(states) == {"there"} if names else "there" in states) else 1


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    run_command(main)
