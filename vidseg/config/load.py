"""From a config file to a complete config: finds the plugins whose keys the file uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vidseg.projects
from vidseg import plugins as plugin_finder
from vidseg.config.defaults import CONFIG_VERSION, get_cfg
from vidseg.config.node import CfgNode, leaves, unknown_key
from vidseg.config.published import PUBLISHED, asks_for_more, describe
from vidseg.config.source import Assignment, read_file, read_overrides
from vidseg.config.values import coerce
from vidseg.errors import ConfigError, UserError

__all__ = ["load_config"]

# Of two keys for one thing, the one that is set later: a number of iterations on the command line
# shortens a run whose file counts epochs.
_REPLACED = {"SOLVER.MAX_ITER": "SOLVER.MAX_EPOCHS", "SOLVER.STEPS": "SOLVER.EPOCH_STEPS"}

logger = logging.getLogger(__name__)


def load_config(
    path: str | os.PathLike[str] | None = None,
    overrides: Sequence[Any] = (),
    plugins: Sequence[str] = (),
) -> CfgNode:
    """Gives the core's keys, those of the plugins in use, then the file, then the overrides.

    The plugin whose folder holds the file and those named are loaded at once; others are looked
    at only when a key is missing. Published keys without effect are accepted and reported.

    Args:
        path: YAML file, possibly with ``_BASE_``; None for the defaults alone.
        overrides: ``[KEY, VALUE, KEY, VALUE, ...]``.
        plugins: names, paths or modules of plugins to load.

    Raises:
        ConfigError: if a file cannot be read, a key is unknown or a value does not fit.
        UserError: if a plugin that was asked for cannot be imported.
    """
    override_items = read_overrides(list(overrides))
    file = None if path is None else _find_file(Path(path))
    items = [] if file is None else read_file(file)
    builder = _Builder(plugins)
    if file is not None and (owner := plugin_finder.plugin_for_config(file)):
        builder.adopt(owner)
    for item in [*items, *override_items]:
        builder.assign(item)
    return builder.finish()


class _Builder:
    """A config that grows by the keys of plugins while assignments come in."""

    def __init__(self, plugins: Sequence[str]) -> None:
        self.cfg = get_cfg()
        self.ignored: dict[str, Any] = {}
        self.adopted: set[str] = set()
        self.failures: list[str] = []
        self.set_in: dict[str, str] = {}
        for name in plugins:
            self.adopt(name)

    def adopt(self, name: str) -> None:
        module = plugin_finder.declare(name)
        if module.__name__ not in self.adopted:
            self.cfg = _with_keys(self.cfg, module, name)
            self.adopted.add(module.__name__)

    def assign(self, item: Assignment) -> None:
        if not self.cfg.has(item.key) and not _is_published(item.key):
            self._adopt_owner_of(item)
        if self.cfg.has(item.key):
            self.cfg.assign(item)
            self._replace_by(item)
        elif item.key in PUBLISHED:
            default = PUBLISHED[item.key].default
            self.ignored[item.key] = coerce(item.key, item.value, default, item.source)
        elif not _is_published(item.key) or item.value not in (None, {}):
            raise self._unknown(item)

    def finish(self) -> CfgNode:
        if self.cfg.VERSION != CONFIG_VERSION:
            raise ConfigError(f"VERSION {self.cfg.VERSION} is not known, only {CONFIG_VERSION} is")
        changed = [key for key, value in self.ignored.items() if asks_for_more(key, value)]
        if changed:
            logger.warning("%s", describe(changed))
        return self.cfg

    def _replace_by(self, item: Assignment) -> None:
        """Lets a key go back to its default when its counterpart is set elsewhere, later."""
        self.set_in[item.key] = item.file
        other = _REPLACED.get(item.key, "")
        if self.set_in.get(other, item.file) != item.file:
            self.cfg.assign(Assignment(other, get_cfg().lookup(other), item.file, item.line))

    def _adopt_owner_of(self, item: Assignment) -> None:
        """Looks through the plugins not in use for one that has the key."""
        for name in plugin_finder.discover():
            try:
                module = plugin_finder.declare(name)
                if module.__name__ in self.adopted:
                    continue
                grown = _with_keys(self.cfg, module, name)
            except UserError as error:
                self.failures.append(str(error))
                continue
            if grown.has(item.key):
                self.cfg = grown
                self.adopted.add(module.__name__)
                return

    def _unknown(self, item: Assignment) -> ConfigError:
        known = [key for key, _ in leaves(self._all_keys())]
        error = unknown_key(item, known, list(PUBLISHED))
        if not self.failures:
            return error
        return ConfigError("; ".join([str(error), *dict.fromkeys(self.failures)]))

    def _all_keys(self) -> CfgNode:
        """Gives the config with the keys of every plugin that works, for suggestions."""
        cfg = self.cfg
        for name in plugin_finder.discover():
            try:
                module = plugin_finder.declare(name)
                cfg = cfg if module.__name__ in self.adopted else _with_keys(cfg, module, name)
            except UserError:
                continue
        return cfg


def _with_keys(cfg: CfgNode, module: Any, name: str) -> CfgNode:
    add_config = getattr(module, "add_config", None)
    if add_config is None:
        return cfg
    grown = cfg.clone()
    try:
        add_config(grown)
    except Exception as error:  # a plugin's mistake is reported under its name
        raise UserError(
            f"plugin '{name}' failed in add_config: {type(error).__name__}: {error}"
        ) from error
    return grown


def _is_published(key: str) -> bool:
    return key in PUBLISHED or any(known.startswith(f"{key}.") for known in PUBLISHED)


def _find_file(path: Path) -> Path:
    """Finds shipped files from anywhere: ``projects/x/y.yaml`` exists in an installation too."""
    if path.exists() or path.is_absolute() or path.parts[:1] != ("projects",):
        return path
    for root in vidseg.projects.__path__:
        shipped = Path(root, *path.parts[1:])
        if shipped.is_file():
            return shipped
    return path
