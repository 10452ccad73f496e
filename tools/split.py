#!/usr/bin/env python
"""Splits a data set into a training and a validation part, with all classes in both."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
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
kept. A class that occurs in a single video stays in training.
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
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Writes both files."""
    args = parse(argv)
    if args.seed < 0:
        raise UserError(f"--seed {args.seed} is negative; give 0 or more")
    from vidseg.data.instance_json import read_content
    from vidseg.files import write_atomically

    content = read_content(args.json_file)
    kind = next((key for key in _KINDS if isinstance(content.get(key), list)), "")
    if not kind:
        raise DataError(f"{args.json_file} has no list of {', '.join(_KINDS)}; it cannot be split")
    labels = _labels(content, kind, args.json_file)
    num_val = round(len(labels) * args.val_share)
    if not 0 < num_val < len(labels):
        raise UserError(
            f"--val-share {args.val_share} of the {len(labels)} {kind} in {args.json_file} leaves "
            "one part empty"
        )
    held_back = hold_back(labels, num_val, args.seed)
    for part, kept in (("train", labels.keys() - held_back), ("val", held_back)):
        path = args.json_file.with_name(f"{args.json_file.stem}_split_{part}.json")
        subset = _subset(content, kind, kept, args.json_file)
        text = json.dumps(subset).encode()
        write_atomically(path, lambda file, text=text: file.write(text))  # type: ignore[misc]
        objects = f", {len(subset['annotations'])} objects" if "annotations" in subset else ""
        print(f"{path}: {len(subset[kind])} {kind}{objects}")
    _tell_classes(content, labels, held_back)


def hold_back(labels: _Labels, num_val: int, seed: int) -> set[Hashable]:
    """Draws what is held back so that every class is in both parts by its share.

    The rarest class comes first: each of what has it goes where the class is missing most
    (Sechidis et al., On the Stratification of Multi-Label Data, 2011, section 3).

    Args:
        labels: classes by what is to be split.
        num_val: how many to hold back.
        seed: of the draw.

    Returns:
        ``num_val`` of the keys.
    """
    import numpy as np

    keys = sorted(labels, key=lambda key: (str(type(key)), key))
    order = [keys[place] for place in np.random.default_rng(seed).permutation(len(keys))]
    share = num_val / len(keys)
    totals = Counter(label for key in keys for label in labels[key])
    # How much each part still lacks: (training, validation).
    lack = {label: [count * (1 - share), count * share] for label, count in totals.items()}
    room = [len(keys) - num_val, num_val]
    parts: dict[Hashable, int] = {}
    by_label: dict[Hashable, list[Hashable]] = defaultdict(list)
    for key in order:
        for label in labels[key]:
            by_label[label].append(key)
    open_counts = Counter(totals)
    while open_counts:
        rarest = min(open_counts, key=lambda label: (open_counts[label], str(label)))
        for key in by_label[rarest]:
            if key in parts:
                continue
            # Where both lack as much, validation is next, but a class is trained on first.
            is_trained = lack[rarest][0] < totals[rarest] * (1 - share)
            part = int((lack[rarest][1], is_trained) > (lack[rarest][0], False))
            part = part if room[part] else 1 - part
            parts[key] = part
            room[part] -= 1
            for label in labels[key]:
                lack[label][part] -= 1
                open_counts[label] -= 1
        open_counts = +open_counts  # drops what is used up
    for key in order:
        if key not in parts:
            parts[key] = int(room[1] > 0)
            room[parts[key]] -= 1
    return {key for key, part in parts.items() if part == 1}


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
