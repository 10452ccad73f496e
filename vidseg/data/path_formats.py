"""Data sets that a path names, with options behind it: ``splits/train.bundle?trim=1&labels=fine``.

The core reads json files and folders; ``Catalog.register_format`` adds other kinds of files, which
projects do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseg.errors import DataError, nearest

__all__ = ["PathFormat", "is_path", "join_options", "split_options"]


@dataclass(frozen=True)
class PathFormat:
    """A kind of files that stand for a data set.

    Args:
        suffixes: ends of their names, e.g. ``(".bundle",)``.
        reader: makes the function that reads the records, as ``Catalog.register`` takes it, of the
            absolute path of the file and the options that were given; raises ``DataError`` if the
            value of one is wrong.
        options: names that options may have.
        metadata: fields of ``Metadata``.
    """

    suffixes: tuple[str, ...]
    reader: Callable[[str, Mapping[str, str]], Callable[[], Sequence[dict[str, Any]]]]
    options: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def check_options(self, path: str, options: Mapping[str, str]) -> None:
        """Refuses options that it does not have.

        Raises:
            DataError: names the nearest.
        """
        for key in options:
            if key not in self.options:
                close = nearest(key, self.options)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(self.options)}"
                raise DataError(f"DATASETS: {path} has no option {key!r}; {hint}")


def is_path(name: str) -> bool:
    """Tells whether a data set is given by a path that no name can be taken for."""
    return name.endswith(".json") or "/" in name or os.sep in name


def split_options(name: str) -> tuple[str, dict[str, str]]:
    """Splits ``path?key=value&key=value``; a path that exists as it stands has no options.

    Raises:
        DataError: if there is a part without ``=``, or an option twice.
    """
    path, mark, query = name.partition("?")
    if not mark or Path(name).expanduser().exists():
        return name, {}
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise DataError(f"DATASETS: {name}: {part!r} is no option; write key=value after '?'")
        if key in options:
            raise DataError(f"DATASETS: {name}: the option {key!r} is given twice")
        options[key] = value
    return path, options


def join_options(path: str, options: Mapping[str, str]) -> str:
    """Gives ``path?key=value&...``, the same for the same options in any order."""
    query = "&".join(f"{key}={options[key]}" for key in sorted(options))
    return f"{path}?{query}" if query else path
