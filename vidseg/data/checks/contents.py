"""The entries of YouTube-VIS and COCO json files, read so that one defect does not hide others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vidseg.video.images import natural_key

from .findings import Findings, listed

__all__ = ["Contents", "Item", "Track", "read_contents"]


@dataclass(frozen=True)
class Item:
    """A video, or an image as a video of one frame.

    Args:
        key: its id.
        name: for messages.
        files: names of the frames as they stand in the file.
        size: (H, W), or ``None`` if that is not known.
        has_length: whether its number of frames is beyond doubt.
    """

    key: Any
    name: str
    files: list[str]
    size: tuple[int, int] | None
    has_length: bool


@dataclass(frozen=True)
class Track:
    """An object.

    Args:
        name: for messages.
        item: where it is.
        category: id of its class.
        crowd: whether it is a crowd.
        masks: its segmentation in every frame as it stands in the file.
        boxes: likewise; ``None`` where there is none.
        areas: likewise.
        keys: how a message calls the segmentation of a frame.
    """

    name: str
    item: Item
    category: Any
    crowd: bool
    masks: list[Any]
    boxes: list[Any]
    areas: list[Any]
    keys: list[str]


@dataclass(frozen=True)
class Contents:
    """What a file holds, as far as it can be used.

    Args:
        classes: names by id.
        items: by id.
        tracks: all whose video or image is known.
    """

    classes: dict[Any, str]
    items: dict[Any, Item]
    tracks: list[Track]


def read_contents(content: dict[str, Any], findings: Findings) -> Contents:
    """Reads all entries and tells what is wrong with each.

    Args:
        content: the parsed file.
        findings: receives the defects.
    """
    word = "video" if "videos" in content or "images" not in content else "image"
    classes = findings.classes = _read_classes(content, findings)
    items = _read_items(content, word, findings)
    tracks = _read_tracks(content, word, items, classes, findings)
    if content.get("annotations") is not None:
        with_objects = {track.item.key for track in tracks}
        empty = [item.name for key, item in items.items() if key not in with_objects]
        if empty:
            findings.add("no-objects", "", f"{len(empty)} {word}s: {listed(empty)}")
        used = {track.category for track in tracks}
        unused = [name for key, name in classes.items() if key not in used]
        if unused:
            findings.add("unused-class", "", f"{len(unused)} of {len(classes)}: {listed(unused)}")
    _check_shared_files(items.values(), findings)
    findings.counts.update({f"{word}s": len(items), "objects": len(tracks)})
    findings.counts["frames"] = sum(len(item.files) for item in items.values())
    return Contents(classes, items, tracks)


def _read_classes(content: dict[str, Any], findings: Findings) -> dict[Any, str]:
    classes: dict[Any, str] = {}
    for entry in _entries(content, "categories", "category", findings):
        key, name = entry["id"], str(entry.get("name", entry["id"]))
        if key in classes:
            findings.add("duplicate-id", f"category {key}", f"is both {classes[key]} and {name}")
        classes[key] = name
    alike: dict[str, list[Any]] = defaultdict(list)
    for key, name in classes.items():
        alike[" ".join(name.casefold().split())].append(key)
    for keys in alike.values():
        if len(keys) > 1:
            names = dict.fromkeys(classes[key] for key in keys)
            findings.add("duplicate-class", listed(names), f"has the ids {listed(keys)}")
    return classes


def _read_items(content: dict[str, Any], word: str, findings: Findings) -> dict[Any, Item]:
    items: dict[Any, Item] = {}
    for entry in _entries(content, f"{word}s", word, findings):
        key = entry["id"]
        name = f"{word} {key}"
        if key in items:
            findings.add("duplicate-id", name, f"{word}s {key} are two")
            continue
        files = _read_files(entry, word, name, findings)
        has_length = _check_length(entry, files, name, findings)
        items[key] = Item(key, name, files, _read_size(entry, name, findings), has_length)
        _check_files(items[key], findings)
    return items


def _read_files(entry: dict[str, Any], word: str, name: str, findings: Findings) -> list[str]:
    key = "file_names" if word == "video" else "file_name"
    if entry.get(key) is None:
        findings.add("missing-key", name, f"lacks the key {key}")
        return []
    files = entry[key] if word == "video" else [entry[key]]
    if not isinstance(files, list) or not all(isinstance(file, str) and file for file in files):
        kind = "a list of names" if word == "video" else "a name"
        findings.add("wrong-value", name, f"{key} is not {kind}")
        return []
    if not files:
        findings.add("wrong-value", name, f"has no frames: {key} is empty")
    return files


def _check_length(entry: dict[str, Any], files: list[str], name: str, findings: Findings) -> bool:
    length = entry.get("length", len(files))
    if files and length != len(files):
        findings.add("length-mismatch", name, f"length is {length!r}, file_names {len(files)}")
        return False
    return bool(files)


def _read_size(entry: dict[str, Any], name: str, findings: Findings) -> tuple[int, int] | None:
    sides = [entry.get(key) for key in ("height", "width")]
    if None in sides:
        findings.add("missing-key", name, "lacks height or width")
        return None
    if not all(type(side) is int and side > 0 for side in sides):
        stated = f"height is {sides[0]!r}, width {sides[1]!r}"
        findings.add("wrong-value", name, f"{stated}; expected positive integers")
        return None
    return sides[0], sides[1]  # type: ignore[return-value]


def _check_files(item: Item, findings: Findings) -> None:
    twice = [file for file, count in Counter(item.files).items() if count > 1]
    if twice:
        findings.add("repeated-frame", item.name, listed(twice))
    elif item.files != sorted(item.files, key=natural_key):
        pairs = zip(item.files, item.files[1:], strict=False)
        first = next(b for a, b in pairs if natural_key(b) < natural_key(a))
        findings.add("frame-order", item.name, f"{first} comes before the frame before it")
    outside = [file for file in item.files if _leads_out(file)]
    if outside:
        findings.add("outside-path", item.name, listed(outside))


def _leads_out(file: str) -> bool:
    path = PurePosixPath(file.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or Path(file).is_absolute()


def _check_shared_files(items: Any, findings: Findings) -> None:
    owners: dict[str, Item] = {}
    told = set()
    for item in items:
        for file in dict.fromkeys(item.files):
            other = owners.setdefault(file, item)
            if other is not item and (other.key, item.key) not in told:
                told.add((other.key, item.key))
                findings.add("shared-frame", item.name, f"{file} is a frame of {other.name}, too")


def _read_tracks(
    content: dict[str, Any],
    word: str,
    items: dict[Any, Item],
    classes: dict[Any, str],
    findings: Findings,
) -> list[Track]:
    if content.get("annotations") is None:
        findings.add("no-annotations", "", "there is no key annotations")
        return []
    tracks = []
    seen: set[Any] = set()
    for entry in _entries(content, "annotations", "annotation", findings, may_be_empty=True):
        name = f"annotation {entry['id']}"
        if entry["id"] in seen:
            findings.add("duplicate-id", name, f"annotations {entry['id']} are two")
        seen.add(entry["id"])
        if entry["id"] == 0:
            findings.add("id-zero", name, "number annotations from 1 for other evaluators")
        track = _read_track(entry, word, name, items, classes, findings)
        if track is not None:
            tracks.append(track)
    return tracks


def _read_track(
    entry: dict[str, Any],
    word: str,
    name: str,
    items: dict[Any, Item],
    classes: dict[Any, str],
    findings: Findings,
) -> Track | None:
    owner, category = (_scalar(entry.get(key)) for key in (f"{word}_id", "category_id"))
    for key, value in ((f"{word}_id", owner), ("category_id", category)):
        if entry.get(key) is None:
            findings.add("missing-key", name, f"lacks the key {key}")
        elif value is None:
            findings.add("wrong-value", name, f"{key} is {entry[key]!r}, expected an integer")
    if category is not None and category not in classes:
        findings.add("unknown-category", name, f"category_id is {category!r}")
    if owner is not None and owner not in items:
        findings.add("unknown-item", name, f"{word}_id is {owner!r}")
    crowd = entry.get("iscrowd")
    if crowd is not None and crowd not in (0, 1):
        kind = "wrong-crowd" if isinstance(crowd, int) else "wrong-value"
        findings.add(kind, name, f"iscrowd is {crowd!r}")
    if owner is None or owner not in items:
        return None
    item = items[owner]
    _check_stated_size(entry, item, name, findings)
    masks, boxes, areas = _read_parts(entry, word, item, name, findings)
    keys = [f"segmentations[{t}]" for t in range(len(masks))]
    keys = keys if word == "video" else ["segmentation"]
    return Track(name, item, category, bool(crowd), masks, boxes, areas, keys)


def _check_stated_size(entry: dict[str, Any], item: Item, name: str, findings: Findings) -> None:
    stated = (entry.get("height"), entry.get("width"))
    if None not in stated and item.size is not None and stated != item.size:
        height, width = item.size
        findings.add(
            "annotation-size",
            name,
            f"states height {stated[0]} and width {stated[1]}, {item.name} {height} and {width}",
        )


def _read_parts(
    entry: dict[str, Any], word: str, item: Item, name: str, findings: Findings
) -> tuple[list[Any], list[Any], list[Any]]:
    """Gives masks, boxes and areas, one of each per frame."""
    if word == "image":
        return ([entry.get("segmentation")], [entry.get("bbox")], [entry.get("area")])
    parts: list[list[Any]] = []
    for key in ("segmentations", "bboxes", "areas"):
        values = entry.get(key)
        if values is None and key == "segmentations":
            hint = "; segmentation is a key of images" if "segmentation" in entry else ""
            findings.add("missing-key", name, f"lacks the key {key}{hint}")
        if values is not None and not isinstance(values, list):
            findings.add("wrong-value", name, f"{key} is a {type(values).__name__}, not a list")
            values = None
        # Empty boxes and areas stand for none.
        if values == [] and key != "segmentations":
            values = None
        if values is not None and item.has_length and len(values) != len(item.files):
            frames = f"{item.name} has {len(item.files)} frames"
            findings.add("entry-count", name, f"{key} has {len(values)} entries, but {frames}")
            values = None if key != "segmentations" else values
        parts.append(values or [])
    length = len(parts[0])
    masks, boxes, areas = ((part + [None] * length)[:length] for part in parts)
    return masks, boxes, areas


def _entries(
    content: dict[str, Any],
    key: str,
    word: str,
    findings: Findings,
    *,
    may_be_empty: bool = False,
) -> Sequence[dict[str, Any]]:
    """Gives the entries of a list that are objects with an id."""
    values = content.get(key)
    if not isinstance(values, list):
        found = "there is none" if values is None else f"it is a {type(values).__name__}"
        findings.add("missing-key", key, f"a list is expected, {found}")
        return []
    if not values and not may_be_empty:
        findings.add("missing-key", key, "the list is empty")
    usable = []
    for place, value in enumerate(values):
        if not isinstance(value, dict):
            findings.add("wrong-value", f"{key}[{place}]", f"is a {type(value).__name__}")
        elif _scalar(value.get("id")) is None:
            findings.add("missing-key", f"{key}[{place}]", f"the {word} has no id")
        else:
            usable.append(value)
    return usable


def _scalar(value: Any) -> int | str | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # as tables of numbers are written
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
