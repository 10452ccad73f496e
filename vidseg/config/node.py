"""The config tree: attribute access as in yacs, merging with tolerant types and helpful errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from fvcore.common.config import CfgNode as _FvcoreNode

from vidseg.config.source import Assignment, read_file, read_overrides
from vidseg.config.values import coerce
from vidseg.errors import ConfigError, nearest

__all__ = ["CfgNode", "unknown_key"]


class CfgNode(_FvcoreNode):
    """A yacs config tree whose merges accept what is harmless and explain what is not.

    Attribute access, ``clone``, ``freeze``, ``defrost`` and ``dump`` are those of yacs; the
    default of a key is its type (``vidseg.config.values`` tells what is converted).
    """

    def merge_from_file(self, cfg_filename: str | os.PathLike[str], **_: Any) -> None:
        """Merges a YAML file with its ``_BASE_`` chain; never constructs Python objects.

        Raises:
            ConfigError: if a key is unknown or a value does not fit.
        """
        for item in read_file(cfg_filename):
            self.assign(item)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges ``[KEY, VALUE, KEY, VALUE, ...]``.

        Raises:
            ConfigError: if a key is unknown, has no value or the value does not fit.
        """
        for item in read_overrides(cfg_list):
            self.assign(item)

    def merge_from_other_cfg(self, cfg_other: _FvcoreNode) -> None:
        """Merges another tree, key by key.

        Raises:
            ConfigError: if a key is unknown or a value does not fit.
        """
        for key, value in leaves(cfg_other):
            self.assign(Assignment(key, value, file="another config"))

    def assign(self, item: Assignment) -> None:
        """Sets one key.

        Raises:
            ConfigError: if the key is unknown or the value does not fit.
        """
        node, name = self._find(item.key)
        if node is None or (name not in node and not node.is_new_allowed()):
            raise unknown_key(item, [key for key, _ in leaves(self)])
        old = node.get(name)
        if isinstance(old, _FvcoreNode):
            if item.value not in (None, {}):
                raise ConfigError(
                    f"{item.key} is a group of keys, got {item.value!r} ({item.source}); "
                    f"name one of them, e.g. {item.key}.{next(iter(old), 'KEY')}"
                )
            return
        node[name] = coerce(item.key, item.value, old, item.source) if name in node else item.value

    def has(self, key: str) -> bool:
        """Tells whether the dotted ``key`` exists, as a value or as a group."""
        node, name = self._find(key)
        return node is not None and (name in node or node.is_new_allowed())

    def lookup(self, key: str) -> Any:
        """Gives the value of a dotted ``key``.

        Raises:
            KeyError: if there is no such key.
        """
        node, name = self._find(key)
        if node is None or name not in node:
            raise KeyError(key)
        return node[name]

    def _find(self, key: str) -> tuple[Any, str]:
        *groups, name = key.split(".")
        node: Any = self
        for group in groups:
            node = node.get(group)
            if not isinstance(node, _FvcoreNode):
                return None, name
        return node, name


def leaves(node: _FvcoreNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Gives every dotted key of the tree with its value."""
    for name, value in node.items():
        if isinstance(value, _FvcoreNode):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def unknown_key(
    item: Assignment, known: Sequence[str], without_effect: Sequence[str] = ()
) -> ConfigError:
    """Gives the error for a key that nobody knows, with the most likely right one.

    Args:
        item: the assignment at fault.
        known: all dotted keys that exist.
        without_effect: keys that are accepted only; suggested when no other is near.
    """
    guess = (
        _guess_in_group(item.key, [*known, *without_effect])
        or _guess_anywhere(item.key, known)
        or _guess_anywhere(item.key, without_effect)
    )
    ending = f"did you mean {guess}?" if guess else "no known key looks like it"
    return ConfigError(f"unknown key {item.key} {item.place}; {ending}")


def _guess_in_group(key: str, known: Sequence[str]) -> str:
    group, _, name = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == group]
    # The group was right, so its name is not repeated.
    return next(iter(nearest(name, siblings, n=1)), "")


def _guess_anywhere(key: str, known: Sequence[str]) -> str:
    name = key.rpartition(".")[2]
    namesakes = [k for k in known if k.rpartition(".")[2] == name]
    close = nearest(key, namesakes, n=1) or namesakes[:1] or nearest(key, known, n=1)
    return next(iter(close), "")
