"""Lists of class names in text files: one name a line, or numbered as in ``mapping.txt``."""

from __future__ import annotations

import re
from pathlib import Path

from vidseg.errors import DataError

__all__ = ["read_class_names"]

_NUMBERED = re.compile(r"(\d+)\s+(\S.*)")


def read_class_names(path: str | Path) -> list[str]:
    """Reads class names; the row of a name is its number.

    Empty lines do not count. If every line begins with a number, the numbers say the order; they
    must then be 0, 1, 2 and so on, each once.

    Args:
        path: of a UTF-8 text file.

    Raises:
        DataError: if it is missing, is no text, holds no name, or names a class or a number twice
            or leaves one out; names file and line.
    """
    lines = _lines(Path(path))
    if not lines:
        raise DataError(f"{path} holds no class names; write one on each line")
    matches = [_NUMBERED.fullmatch(text) for _, text in lines]
    numbered = [match for match in matches if match]
    # A class may be called "2 cups" among others that have no number.
    if len(numbered) == len(lines):
        lines = _in_order(
            path, [(line, int(m[1]), m[2]) for (line, _), m in zip(lines, numbered, strict=True)]
        )
    seen: dict[str, int] = {}
    for line, name in lines:
        if name in seen:
            raise DataError(f"{path}:{line} names the class {name!r} again, as line {seen[name]}")
        seen[name] = line
    return list(seen)


def _in_order(path: str | Path, entries: list[tuple[int, int, str]]) -> list[tuple[int, str]]:
    by_number: dict[int, tuple[int, str]] = {}
    for line, number, name in entries:
        if number in by_number:
            raise DataError(
                f"{path}:{line} gives the number {number} again, as line {by_number[number][0]}"
            )
        if number >= len(entries):
            raise DataError(
                f"{path}:{line} gives the number {number}, but {len(entries)} classes have the "
                f"numbers 0 to {len(entries) - 1}"
            )
        by_number[number] = (line, name)
    return [by_number[number] for number in range(len(entries))]


def _lines(path: Path) -> list[tuple[int, str]]:
    """Gives number and text of lines that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"the list of classes {path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is no text in UTF-8; it should hold one class name a line"
        ) from None
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in stripped if line]
