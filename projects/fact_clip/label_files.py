"""The text files of action segmentation: class mapping, split, and labels of a video by frame.

All are read line by line; a missing newline at the end, blank lines there, spaces around a line and
Windows line ends make no difference.
"""

from __future__ import annotations

from pathlib import Path

from vidseg.errors import DataError, nearest

__all__ = ["read_labels", "read_mapping", "read_split"]


def read_mapping(path: Path) -> tuple[list[str], list[int]]:
    """Reads the classes, ``<number> <name>`` each.

    Returns:
        Names and numbers, by ascending number.

    Raises:
        DataError: if the file is missing or broken; names the line.
    """
    names: dict[int, str] = {}
    lines: dict[int | str, int] = {}
    for number, line in _numbered(path, "the mapping of classes"):
        word, name = (*line.split(maxsplit=1), "")[:2]
        if not (word.isascii() and word.isdecimal()) or not name:
            raise DataError(
                f"{path}:{number}: {line!r} is not a number and the name of a class, as in "
                "'0 background'"
            )
        for key, what in ((int(word), f"the number {word}"), (name, f"the class {name!r}")):
            if key in lines:
                raise DataError(f"{path}:{number}: {what} stands in line {lines[key]} already")
            lines[key] = number
        names[int(word)] = name
    if not names:
        raise DataError(f"{path} holds no classes; expected lines such as '0 background'")
    numbers = sorted(names)
    return [names[number] for number in numbers], numbers


def read_split(path: Path) -> dict[str, int]:
    """Reads the names of the videos of a split, without ``.txt``.

    Returns:
        The line of each.

    Raises:
        DataError: if the file is missing, names no video or one twice.
    """
    videos: dict[str, int] = {}
    for number, line in _numbered(path, "the split"):
        name = line.removesuffix(".txt")
        if name in videos:
            raise DataError(f"{path}:{number}: the video {name!r} stands in line {videos[name]}")
        videos[name] = number
    if not videos:
        raise DataError(f"{path} names no videos; expected one in each line")
    return videos


def read_labels(path: Path, classes: dict[str, int], mapping: Path) -> list[int]:
    """Reads the class of every frame, a name in each line.

    Args:
        path: of the file.
        classes: number of each name.
        mapping: where the names come from, for messages.

    Raises:
        DataError: if the file is missing, empty, or holds what is no class; names the line.
    """
    lines = _lines(path, "the labels")
    if not lines:
        raise DataError(f"{path} holds no labels; expected the name of a class for every frame")
    try:
        return [classes[line] for line in lines]
    except KeyError:
        number, line = next((n, line) for n, line in enumerate(lines, 1) if line not in classes)
    if not line:
        raise DataError(f"{path}:{number} is blank; expected the name of a class")
    close = nearest(line, classes)
    hint = f"; nearest: {', '.join(close)}" if close else ""
    raise DataError(
        f"{path}:{number}: {line!r} is none of the {len(classes)} classes of {mapping}{hint}"
    )


def _numbered(path: Path, what: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(_lines(path, what), 1) if line]


def _lines(path: Path, what: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{what} {path} is missing") from None
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8; expected {what}") from None
    # A frame is a line, hence no splitlines: it splits at more than line ends.
    return [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []
