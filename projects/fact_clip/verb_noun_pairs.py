"""Classes that are pairs of a verb and a noun, and where the pairs come from.

Shapes: C classes, V verbs, N nouns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidseg.data import dataset_root
from vidseg.errors import ConfigError, DataError, nearest

from .label_files import read_mapping

__all__ = ["VerbNounPairs", "read_pairs"]

_COLUMNS = ("class", "verb", "noun")


@dataclass(frozen=True)
class VerbNounPairs:
    """Verb and noun of each class.

    Args:
        verbs: number of the verb of each class, C of them.
        nouns: number of the noun of each class.
        num_verbs: V.
        num_nouns: N.

    Raises:
        ValueError: if there are no classes, not as many verbs as nouns, or a number is out of
            range.
    """

    verbs: tuple[int, ...]
    nouns: tuple[int, ...]
    num_verbs: int
    num_nouns: int

    def __post_init__(self) -> None:
        if len(self.verbs) != len(self.nouns) or not self.verbs:
            raise ValueError(
                f"there are {len(self.verbs)} verbs and {len(self.nouns)} nouns of classes; "
                "give one of each for every class"
            )
        for what, numbers, count in (
            ("verb", self.verbs, self.num_verbs),
            ("noun", self.nouns, self.num_nouns),
        ):
            wrong = [number for number in numbers if not 0 <= number < count]
            if wrong:
                raise ValueError(f"{what} {wrong[0]} is not one of {count}, 0 to {count - 1}")

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> VerbNounPairs:
        """Takes a pair of numbers per class; the largest tell how many verbs and nouns there are.

        Raises:
            ValueError: as the class.
        """
        verbs, nouns = tuple(verb for verb, _ in pairs), tuple(noun for _, noun in pairs)
        return cls(verbs, nouns, max(verbs, default=-1) + 1, max(nouns, default=-1) + 1)

    def __len__(self) -> int:
        """The number of classes, C."""
        return len(self.verbs)


def read_pairs(path: str, classes: Sequence[str] = ()) -> VerbNounPairs:
    """Reads the verb and the noun of every class.

    Args:
        path: of a csv file with the columns ``class``, ``verb`` and ``noun``, in which verbs and
            nouns are numbers, or names that are then numbered in alphabetical order; or of a folder
            with ``verb_mapping.txt`` and ``noun_mapping.txt`` ("<number> <name>" in each line) for
            classes that are called "<verb>,<noun>", which keeps the numbers of Epic-Kitchens.
            Relative paths lie below the working directory or the data set root.
        classes: names of the classes; () takes those of the file, or of ``mapping.txt`` in the
            folder.

    Raises:
        ConfigError: if ``path`` is empty.
        DataError: if a file is missing or broken or lacks a class; names file, and line or class.
    """
    if not path:
        raise ConfigError(
            "FACT.verb_noun is empty; name a csv file with the columns class, verb and noun, or "
            "the folder with verb_mapping.txt and noun_mapping.txt"
        )
    given, below = Path(path).expanduser(), dataset_root() / path
    found = given if given.exists() else below
    if found.is_dir():
        return _read_mappings(found, classes)
    return _read_csv(found, classes)


def _read_csv(path: Path, classes: Sequence[str]) -> VerbNounPairs:
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} names no classes; expected a line with class, verb and noun each")
    verbs, num_verbs = _numbered(path, "verb", {name: row["verb"] for name, row in rows.items()})
    nouns, num_nouns = _numbered(path, "noun", {name: row["noun"] for name, row in rows.items()})
    names = classes or list(rows)
    for name in names:
        if name not in rows:
            close = ", ".join(nearest(name, rows)) or f"none of its {len(rows)} is like it"
            raise DataError(f"{path} has no line for the class {name!r}; nearest: {close}")
    return VerbNounPairs(
        tuple(verbs[name] for name in names),
        tuple(nouns[name] for name in names),
        num_verbs,
        num_nouns,
    )


def _rows(path: Path) -> dict[str, dict[str, str]]:
    """Gives the lines of a csv file by class."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} is missing (config: FACT.verb_noun)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error} (config: FACT.verb_noun)") from None
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}:1: the column {missing[0]} is missing; expected {_COLUMNS}")
    rows: dict[str, dict[str, str]] = {}
    for row in reader:
        values = {name: (row[name] or "").strip() for name in _COLUMNS}
        where = f"{path}:{reader.line_num}"
        empty = [name for name in _COLUMNS if not values[name]]
        if empty:
            raise DataError(f"{where}: the {empty[0]} is missing")
        if values["class"] in rows:
            raise DataError(f"{where}: the class {values['class']!r} has a line already")
        rows[values["class"]] = values
    return rows


def _numbered(path: Path, what: str, words: dict[str, str]) -> tuple[dict[str, int], int]:
    """Gives a number for each class, and how many numbers there are."""
    is_number = {word: word.isascii() and word.isdecimal() for word in words.values()}
    if all(is_number.values()):
        numbers = {name: int(word) for name, word in words.items()}
        return numbers, max(numbers.values()) + 1
    if any(is_number.values()):
        word = next(word for word, is_one in is_number.items() if not is_one)
        raise DataError(f"{path}: the {what} {word!r} is a name, others are numbers; give one kind")
    order = {word: number for number, word in enumerate(sorted(is_number))}
    return {name: order[word] for name, word in words.items()}, len(order)


def _read_mappings(folder: Path, classes: Sequence[str]) -> VerbNounPairs:
    if not classes:
        classes, _ = read_mapping(folder / "mapping.txt")
    found: list[list[int]] = []
    counts = []
    for place, what in enumerate(("verb", "noun")):
        path = folder / f"{what}_mapping.txt"
        known = dict(zip(*read_mapping(path), strict=True))
        found.append([_look_up(known, name, place, what, path) for name in classes])
        counts.append(max(known.values()) + 1)
    return VerbNounPairs(tuple(found[0]), tuple(found[1]), *counts)


def _look_up(known: dict[str, int], name: str, place: int, what: str, path: Path) -> int:
    words = name.split(",")
    if len(words) != 2:
        raise DataError(
            f"the class {name!r} is not called '<verb>,<noun>', as those of {path.parent} are; "
            "name a csv file with the columns class, verb and noun (config: FACT.verb_noun)"
        )
    word = words[place].strip()
    if word not in known:
        close = ", ".join(nearest(word, known)) or f"none of its {len(known)} is like it"
        raise DataError(f"{path} has no {what} {word!r} of the class {name!r}; nearest: {close}")
    return known[word]
