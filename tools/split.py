#!/usr/bin/env python
"""Splits a data set into a training and a validation part, with all classes in both."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.errors import DataError, UserError, run_command

EXAMPLE = """example:
  python tools/split.py datasets/ytvis_2021/train.json --val-share 0.1

writes train_split_train.json and train_split_val.json beside it, for the same frames. Whole videos
(of a COCO file images, of an index of documents documents) are held back, so that the classes
(topics) have nearly the same shares in both parts; which ones, the seed draws. Ids and classes are
kept. A class that occurs in a single video stays in training. Videos that share a frame stay
together; so do those of one recording, if --together says what they have in common:

  python tools/split.py my_set/instances.json --together '^[^/]+'
"""

_KINDS = ("videos", "images", "documents")
_Labels = Mapping[Hashable, set[Hashable]]


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json_file", type=Path, help="file to split, with annotations")
    parser.add_argument("--val-share", type=float, default=0.1, help="share of videos (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="which videos are drawn (0)")
    parser.add_argument(
        "--together",
        metavar="REGEX",
        help="videos in whose file names it (or its group) finds the same are in the same part",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Writes both files."""
    args = parse(argv)
    if args.seed < 0:
        raise UserError(f"--seed {args.seed} is negative; give 0 or more")
    if not 0 < args.val_share < 1:
        raise UserError(f"--val-share {args.val_share} is no share; give one between 0 and 1")
    source = _compiled(args.together)
    from vidseg.data.instance_json import read_content
    from vidseg.files import write_atomically

    content = read_content(args.json_file)
    kind = next((key for key in _KINDS if isinstance(content.get(key), list)), "")
    if not kind:
        raise DataError(f"{args.json_file} has no list of {', '.join(_KINDS)}; it cannot be split")
    labels = _labels(content, kind, args.json_file)
    groups = keep_together({item["id"]: _marks(item, source) for item in content[kind]})
    num_val = round(len(labels) * args.val_share)
    held_back = hold_back(labels, num_val, args.seed, groups)
    if not 0 < len(held_back) < len(labels):
        told = f" in {len(groups)} groups" if len(groups) < len(labels) else ""
        raise UserError(
            f"--val-share {args.val_share} of the {len(labels)} {kind} in {args.json_file}{told} "
            "leaves one part empty"
        )
    parts = {}
    for part, kept in (("train", labels.keys() - held_back), ("val", held_back)):
        path = args.json_file.with_name(f"{args.json_file.stem}_split_{part}.json")
        subset = _subset(content, kind, kept, args.json_file)
        parts[path] = (subset, json.dumps(subset).encode())
    for path, (_, text) in parts.items():
        if path.exists() and path.read_bytes() != text:
            raise UserError(
                f"{path} is there already, of another split; what was trained on one must not be "
                "validated on another, so remove it yourself"
            )
    for path, (subset, text) in parts.items():
        write_atomically(path, lambda file, text=text: file.write(text))  # type: ignore[misc]
        objects = f", {len(subset['annotations'])} objects" if "annotations" in subset else ""
        print(f"{path}: {len(subset[kind])} {kind}{objects}")
    _tell_classes(content, labels, held_back)


def keep_together(marks: Mapping[Hashable, Iterable[str]]) -> list[list[Hashable]]:
    """Joins what has a mark in common, also by way of others.

    Args:
        marks: by what is to be split.

    Returns:
        The groups, in the order of their first members.
    """
    leader: dict[Hashable, Hashable] = {key: key for key in marks}

    def find(key: Hashable) -> Hashable:
        while leader[key] != key:
            key = leader[key]
        return key

    owners: dict[str, Hashable] = {}
    for key, found in marks.items():
        for mark in found:
            leader[find(key)] = find(owners.setdefault(mark, key))
    groups: dict[Hashable, list[Hashable]] = defaultdict(list)
    for key in marks:
        groups[find(key)].append(key)
    return list(groups.values())


def hold_back(
    labels: _Labels, num_val: int, seed: int, groups: Iterable[list[Hashable]] | None = None
) -> set[Hashable]:
    """Draws what is held back so that every class is in both parts by its share.

    The rarest class comes first: each of what has it goes where the class is missing most
    (Sechidis et al., On the Stratification of Multi-Label Data, 2011, section 3).

    Args:
        labels: classes by what is to be split.
        num_val: how many to hold back.
        seed: of the draw.
        groups: what must stay together; by default each stands alone.

    Returns:
        ``num_val`` of the keys, or as many as groups allow that are not more.
    """
    import numpy as np

    units = [tuple(group) for group in groups or ([key] for key in labels)]
    units.sort(key=lambda unit: (str(type(unit[0])), unit[0]))
    found = {unit: set().union(*(labels[key] for key in unit)) for unit in units}
    order = [units[place] for place in np.random.default_rng(seed).permutation(len(units))]
    share = num_val / len(labels)
    totals = Counter(label for unit in units for label in found[unit])
    # How much each part still lacks: (training, validation).
    lack = {label: [count * (1 - share), count * share] for label, count in totals.items()}
    room = [len(labels) - num_val, num_val]
    parts: dict[tuple[Hashable, ...], int] = {}

    def put(unit: tuple[Hashable, ...], part: int) -> None:
        is_full = room[part] < len(unit)
        parts[unit] = int(room[1] >= len(unit) and (part == 1) != is_full)
        room[parts[unit]] -= len(unit)

    by_label: dict[Hashable, list[tuple[Hashable, ...]]] = defaultdict(list)
    for unit in order:
        for label in found[unit]:
            by_label[label].append(unit)
    open_counts = Counter(totals)
    while open_counts:
        rarest = min(open_counts, key=lambda label: (open_counts[label], str(label)))
        for unit in by_label[rarest]:
            if unit in parts:
                continue
            # Where both lack as much, validation is next, but a class is trained on first.
            is_trained = lack[rarest][0] < totals[rarest] * (1 - share)
            put(unit, int((lack[rarest][1], is_trained) > (lack[rarest][0], False)))
            for label in found[unit]:
                lack[label][parts[unit]] -= 1
                open_counts[label] -= 1
        open_counts = +open_counts  # drops what is used up
    for unit in order:
        if unit not in parts:
            put(unit, 1)
    return {key for unit, part in parts.items() if part == 1 for key in unit}


def _compiled(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise UserError(f"--together {text!r} is no regular expression: {error}") from None


def _marks(item: dict[str, Any], source: re.Pattern[str] | None) -> set[str]:
    """Gives what only items of the same part may have in common."""
    values = [item.get(key) for key in ("file_names", "file_name", "paths", "path")]
    files = {f for value in values for f in (value if isinstance(value, list) else [value]) if f}
    marks = {f"file {file}" for file in files}
    if source is not None:
        matches = [source.search(str(file)) for file in files]
        if None in matches:
            name = next(str(file) for file in files if source.search(str(file)) is None)
            raise UserError(f"--together {source.pattern!r} finds nothing in {name}")
        marks |= {
            f"source {match[1] if match.re.groups else match[0]}" for match in matches if match
        }
    return marks


def _labels(content: dict[str, Any], kind: str, path: Path) -> dict[Hashable, set[Hashable]]:
    """Gives the classes in each video, image or document by its id."""
    from vidseg.data.instance_json import take

    word = kind[:-1]
    labels: dict[Hashable, set[Hashable]] = {}
    for item in content[kind]:
        key = take(item, "id", path, f"a {word}")
        if key in labels:
            raise DataError(f"{path}: two {kind} have the id {key!r}")
        frames = item.get("labels") if isinstance(item.get("labels"), list) else []
        labels[key] = {("topic", item["topic"])} if item.get("topic") is not None else set()
        labels[key] |= set(frames)
    for annotation in content.get("annotations") or []:
        owner = take(annotation, f"{word}_id", path, "annotation")
        if owner not in labels:
            raise DataError(f"{path}: an annotation has {word}_id {owner!r}, which is no {word}")
        labels[owner].add(take(annotation, "category_id", path, "annotation"))
    return labels


def _subset(
    content: dict[str, Any], kind: str, kept: set[Hashable], json_file: Path
) -> dict[str, Any]:
    subset = {**content, kind: [item for item in content[kind] if item["id"] in kept]}
    if kind == "documents":
        return subset
    owner = f"{kind[:-1]}_id"
    subset["annotations"] = [a for a in content.get("annotations") or [] if a[owner] in kept]
    root = _image_root(json_file, content)
    return {**subset, "image_root": os.path.relpath(root, json_file.parent)}


def _image_root(json_file: Path, content: dict[str, Any]) -> Path:
    """Gives the folder of the frames: as published, if it is a published file."""
    from vidseg.data import DatasetCatalog
    from vidseg.data.ytvis import find_image_root

    for name in DatasetCatalog.names():
        known = DatasetCatalog.registered(name)
        if known.json_file and Path(known.json_file).resolve() == json_file.resolve():
            return Path(known.image_root).resolve()
    return find_image_root(json_file, content)


def _tell_classes(content: dict[str, Any], labels: _Labels, held_back: set[Hashable]) -> None:
    """Names the classes that are in one part only."""
    names = {c["id"]: str(c.get("name", c["id"])) for c in content.get("categories") or []}
    seen = [
        {label for key in part for label in labels[key]}
        for part in (labels.keys() - held_back, held_back)
    ]
    for part, missing in (("training", seen[1] - seen[0]), ("validation", seen[0] - seen[1])):
        if missing:
            told = sorted(
                str(label[1]) if isinstance(label, tuple) else names.get(label, str(label))
                for label in missing
            )
            print(f"not in {part}: {', '.join(told)}")


if __name__ == "__main__":
    run_command(main)
