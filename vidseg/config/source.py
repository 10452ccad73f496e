"""Config files as flat lists of assignments that remember where they were written.

``_BASE_`` names another file, relative to the one it stands in, whose assignments come first, or a
list of files, of which the later win. YAML is read without ever constructing a Python object: tags
such as ``!!python`` are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vidseg.errors import ConfigError, nearest

__all__ = ["BASE_KEY", "Assignment", "pair_up", "read_file", "read_overrides"]

BASE_KEY = "_BASE_"
COMMAND_LINE = "command line"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built

# Values that are paths relative to the file they stand in.
_PATH_KEYS = ("SOLVER.INIT_FROM",)


@dataclass(frozen=True)
class Assignment:
    """One ``key = value`` and where it stands: a file with its line, or the command line."""

    key: str
    value: Any
    file: str = ""
    line: int = 0

    @property
    def source(self) -> str:
        """What a message puts in brackets."""
        return f"{self.file}:{self.line}" if self.line else self.file or COMMAND_LINE

    @property
    def place(self) -> str:
        """The same within a sentence about a key."""
        return f"in {self.source}" if self.file else f"({COMMAND_LINE})"


def read_file(path: str | os.PathLike[str]) -> list[Assignment]:
    """Gives the assignments of a YAML file, those of its ``_BASE_`` chain first.

    Raises:
        ConfigError: if a file is missing, is no plain YAML mapping, or names itself as its base.
    """
    return _read_chain(Path(path), [])


def read_overrides(words: Sequence[Any]) -> list[Assignment]:
    """Gives the assignments of ``KEY VALUE KEY VALUE ...``.

    Raises:
        ConfigError: if a key has no value.
    """
    assignments = []
    for key, value in pair_up(words):
        if key in _PATH_KEYS and value:
            value = os.path.abspath(os.path.expanduser(value))
        assignments.append(Assignment(str(key), value))
    return assignments


def pair_up(words: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Splits ``KEY VALUE KEY VALUE ...`` into pairs.

    Raises:
        ConfigError: if a key has no value.
    """
    if len(words) % 2:
        raise ConfigError(
            f"overrides come in pairs KEY VALUE, got {len(words)} words: "
            f"the last one, {str(words[-1])!r}, has no partner ({COMMAND_LINE})"
        )
    return list(zip(words[::2], words[1::2], strict=True))


def _read_chain(path: Path, above: list[Path]) -> list[Assignment]:
    resolved = path.resolve()
    if resolved in above:
        chain = " -> ".join(str(step) for step in [*above, resolved])
        raise ConfigError(f"{BASE_KEY} goes round in a circle: {chain}")
    assignments: list[Assignment] = []
    for item in _read_mapping(path, named_by=above[-1] if above else None):
        if item.key != BASE_KEY:
            assignments.append(_with_absolute_path(item, path))
            continue
        inherited = [
            assignment
            for name in _base_names(item)
            for assignment in _read_chain(path.parent / name, [*above, resolved])
        ]
        assignments[:0] = inherited
    return assignments


def _base_names(item: Assignment) -> list[str]:
    names = item.value if isinstance(item.value, list) else [item.value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            f"{BASE_KEY} wants a file name, got {item.value!r} ({item.source}), or a list of them"
        )
    return [os.path.expanduser(name) for name in names]


def _with_absolute_path(item: Assignment, path: Path) -> Assignment:
    if item.key not in _PATH_KEYS or not isinstance(item.value, str) or not item.value:
        return item
    target = path.resolve().parent / os.path.expanduser(item.value)
    return Assignment(item.key, os.path.normpath(target), item.file, item.line)


def _read_mapping(path: Path, named_by: Path | None) -> list[Assignment]:
    text = _read_text(path, named_by)
    loader = _LOADER(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return []
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"config file {path} holds no KEY: VALUE lines")
        return list(_walk(loader, root, "", str(path)))
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(
            f"only plain YAML is read, {path}:{line} has more: {error.problem}"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{path}:{line} is not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    finally:
        loader.dispose()


def _read_text(path: Path, named_by: Path | None) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise ConfigError(f"config file {path} is a folder; name one of its .yaml files") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from error
    where = f" ({BASE_KEY} of {named_by})" if named_by else ""
    siblings = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    close = nearest(path.name, siblings)
    hint = f"; nearest: {', '.join(str(path.parent / name) for name in close)}" if close else ""
    raise ConfigError(f"config file {path} does not exist{where}{hint}")


def _walk(
    loader: yaml.SafeLoader, node: yaml.MappingNode, prefix: str, file: str
) -> Iterator[Assignment]:
    if node.tag != "tag:yaml.org,2002:map":
        raise yaml.constructor.ConstructorError(
            None, None, f"tag {node.tag!r} on a group", node.start_mark
        )
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        key = f"{prefix}{loader.construct_object(key_node)}"
        if isinstance(value_node, yaml.MappingNode):
            yield from _walk(loader, value_node, f"{key}.", file)
        else:
            value = loader.construct_object(value_node, deep=True)
            yield Assignment(key, value, file, key_node.start_mark.line + 1)
