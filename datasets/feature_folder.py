"""What the scripts that compute features share: topics by rules, and the folder that they fill."""

from __future__ import annotations

import argparse
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import UserError
from vidseg.files import make_folder, write_folder

__all__ = ["FeatureFile", "TopicRules", "make_new_folder", "number", "report", "write_index"]


_HEADER_SIZE = 128  # bytes; a multiple of 64, as the format asks


class TopicRules:
    r"""Gives files their topics, by their paths.

    Args:
        rules: ``PATTERN=TOPIC`` each. The first whose regular expression fits the beginning of
            the path counts; ``\1`` in its topic stands for the pattern's first group, and so on.
            Without a topic, or without a rule that fits, a file is left out.

    Raises:
        UserError: if a rule is no such pair.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        self._rules = [self._parse(rule) for rule in rules]

    def topic_of(self, path: str) -> str:
        """Gives the topic of a path with ``/``; ``""`` if it has none."""
        for pattern, topic in self._rules:
            if match := pattern.match(path):
                return match.expand(topic)
        return ""

    @staticmethod
    def _parse(rule: str) -> tuple[re.Pattern[str], str]:
        text, equals, topic = rule.rpartition("=")
        if not equals:
            raise UserError(f"--topics {rule!r} is no rule; write PATTERN=TOPIC")
        try:
            pattern = re.compile(text)
            re.compile(f"{text}|").match("").expand(topic)  # type: ignore[union-attr]
        except (re.error, IndexError) as error:
            raise UserError(f"--topics {rule!r} is no rule: {error}") from None
        return pattern, topic


def make_new_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Fills a folder, which appears as ``path`` when it is complete.

    Args:
        path: of the folder.
        write: fills the one that it is given.

    Raises:
        UserError: if there is something of that name already, or it cannot be made.
    """
    taken = UserError(f"{path} is there already; remove it or name another folder")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise taken
    path = path.resolve()
    make_folder(path.parent, "the folder")
    if not write_folder(path, write):
        raise taken


class FeatureFile:
    """Writes a ``.npy`` file of features ``(T, D)`` row by row, T unknown until it is closed.

    To be used as a context; one that ends with an error leaves no file. NumPy's own writer does
    not say why when a disk is full.

    Args:
        path: of the file.
        dtype: of the numbers in it.

    Attributes:
        num_frames: T so far.
    """

    def __init__(self, path: Path, dtype: str = "<f4") -> None:
        self.num_frames = 0
        self._dtype = dtype
        self._width = 0
        self._file = path.open("wb")
        self._path = path

    def __enter__(self) -> FeatureFile:
        self._file.write(bytes(_HEADER_SIZE))
        return self

    def append(self, rows: np.ndarray) -> None:
        """Writes rows ``(t, D)``."""
        self.num_frames += len(rows)
        self._width = rows.shape[1]
        self._file.write(rows.astype(self._dtype).tobytes())

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._file as file:
            shape = f"({self.num_frames}, {self._width})"
            layout = f"{{'descr': '{self._dtype}', 'fortran_order': False, 'shape': {shape}, }}"
            text = layout.ljust(_HEADER_SIZE - 11) + "\n"
            file.seek(0)
            file.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode())
        if kind is not None:
            self._path.unlink()


def write_index(folder: Path, documents: list[dict[str, Any]], **common: Any) -> None:
    """Writes ``index.json`` (see ``vidseg.data.features``).

    Args:
        folder: of the feature files.
        documents: entries of the documents.
        common: what is true of all of them.
    """
    content = {**common, "documents": documents}
    (folder / "index.json").write_text(json.dumps(content, indent=1))


def report(error: UserError) -> None:
    """Tells of an input that is left out."""
    print(f"{error.label}: {error}; left out", file=sys.stderr, flush=True)


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """Gives a reader of numbers from ``low`` to below ``high``, for a command line."""

    def read(text: str) -> Any:
        value = kind(text)
        if not low <= value < high:
            upper = f" and less than {high:g}" if high < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text} is not {low:g} or more{upper}")
        return value

    read.__name__ = kind.__name__  # what argparse calls text that is no number
    return read
