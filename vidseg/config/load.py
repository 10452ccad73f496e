"""From a config file to a complete config: finds the plugins whose keys the file uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import vidseg.projects
from vidseg import plugins as plugin_finder
from vidseg.config.defaults import CONFIG_VERSION, get_cfg
from vidseg.config.node import CfgNode, leaves, unknown_key
from vidseg.config.published import PUBLISHED, WithoutEffect, asks_for_more, describe
from vidseg.config.source import Assignment, read_file, read_overrides
from vidseg.config.values import coerce
from vidseg.errors import ConfigError, UserError, nearest

__all__ = ["adopt_config", "as_config", "load_config"]

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
    at only when a key is missing. Published keys without effect are accepted and reported; where
    a published system names and counts things in another way, its project's ``translate`` puts
    the assignments in terms of keys that exist.

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
    builder.assign_all([*items, *override_items])
    return builder.finish()


def as_config(
    config: str | os.PathLike[str] | CfgNode,
    overrides: Sequence[Any] = (),
    plugins: Sequence[str] = (),
    *,
    device: str | None = None,
) -> CfgNode:
    """Gives a config that may be loaded already.

    Args:
        config: YAML file, or a config already loaded.
        overrides: ``[KEY, VALUE, ...]``; they do not apply to a config already loaded.
        plugins: to load besides the config's own; likewise.
        device: instead of ``MODEL.DEVICE``; a config already loaded stays as it is.

    Raises:
        ConfigError: if the config is wrong, or is loaded and would be changed.
    """
    if not isinstance(config, CfgNode):
        cfg = load_config(config, overrides, plugins)
    elif overrides or plugins:
        raise ConfigError("overrides and plugins need a config file, not a loaded config")
    else:
        cfg = config
    if device is not None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = device
    return cfg


def adopt_config(values: Mapping[str, Any], *, source: str) -> CfgNode:
    """Gives a config with values of another library's, found and translated as those of a file.

    Args:
        values: by dotted key. What no plugin knows is left out, and what has no effect is reported.
        source: whose they are, for messages.

    Raises:
        ConfigError: if a value does not fit.
    """
    builder = _Builder(())
    items = [Assignment(key, value, file=source) for key, value in values.items()]
    builder.assign_all([item for item in items if builder.knows(item.key)])
    return builder.finish()


class _Builder:
    """A config that grows by the keys of plugins while assignments come in."""

    def __init__(self, plugins: Sequence[str]) -> None:
        self.cfg = get_cfg()
        self.ignored: dict[str, Any] = {}
        self.without_effect = dict(PUBLISHED)
        self.adopted: dict[str, ModuleType] = {}
        self.failures: list[str] = []
        self.set_in: dict[str, str] = {}
        for name in plugins:
            self.adopt(name)

    def adopt(self, name: str) -> None:
        module = plugin_finder.declare(name)
        if module.__name__ not in self.adopted:
            self._take(module, _with_keys(self.cfg, module, name))

    def knows(self, key: str) -> bool:
        self._make_known(key)
        return self.cfg.has(key) or self._is_published(key) or self._is_translated(key)

    def assign_all(self, items: list[Assignment]) -> None:
        for item in items:
            self._make_known(item.key)
        for module in self.adopted.values():
            if not _translated_keys(module).isdisjoint(item.key for item in items):
                items = module.translate(items)
        for item in items:
            self.assign(item)

    def assign(self, item: Assignment) -> None:
        self._make_known(item.key)
        if self.cfg.has(item.key):
            self.cfg.assign(item)
            self._replace_by(item)
        elif item.key in self.without_effect:
            default = self.without_effect[item.key].default
            self.ignored[item.key] = coerce(item.key, item.value, default, item.source)
        elif not self._is_published(item.key) or item.value not in (None, {}):
            raise self._unknown(item)

    def finish(self) -> CfgNode:
        if self.cfg.VERSION != CONFIG_VERSION:
            raise ConfigError(f"VERSION {self.cfg.VERSION} is not known, only {CONFIG_VERSION} is")
        known = self.without_effect
        changed = [key for key, value in self.ignored.items() if asks_for_more(key, value, known)]
        if changed:
            logger.warning("%s", describe(changed, known))
        return self.cfg

    def _replace_by(self, item: Assignment) -> None:
        """Lets a key go back to its default when its counterpart is set elsewhere, later."""
        self.set_in[item.key] = item.file
        other = _REPLACED.get(item.key, "")
        if self.set_in.get(other, item.file) != item.file:
            self.cfg.assign(Assignment(other, get_cfg().lookup(other), item.file, item.line))

    def _make_known(self, key: str) -> None:
        """Looks through the plugins not in use for one that has the key, if none in use has."""
        if self.cfg.has(key) or self._is_published(key) or self._is_translated(key):
            return
        for name in plugin_finder.discover():
            try:
                module = plugin_finder.declare(name)
                if module.__name__ in self.adopted:
                    continue
                grown = _with_keys(self.cfg, module, name)
            except UserError as error:
                self.failures.append(str(error))
                continue
            if grown.has(key) or key in _translated_keys(module) or key in _without_effect(module):
                self._take(module, grown)
                return

    def _take(self, module: ModuleType, grown: CfgNode) -> None:
        self.cfg = grown
        self.adopted[module.__name__] = module
        self.without_effect.update(_without_effect(module))

    def _is_published(self, key: str) -> bool:
        known = self.without_effect
        return key in known or any(name.startswith(f"{key}.") for name in known)

    def _is_translated(self, key: str) -> bool:
        return any(key in _translated_keys(module) for module in self.adopted.values())

    def _unknown(self, item: Assignment) -> ConfigError:
        cfg, others = self._all_keys()
        error = unknown_key(item, [key for key, _ in leaves(cfg)], others)
        if not self.failures:
            return error
        return ConfigError("; ".join([str(error), *dict.fromkeys(self.failures)]))

    def _all_keys(self) -> tuple[CfgNode, list[str]]:
        """Gives the config with the keys of every plugin that works, and published keys."""
        cfg, others = self.cfg, list(PUBLISHED)
        for name in plugin_finder.discover():
            try:
                module = plugin_finder.declare(name)
                cfg = cfg if module.__name__ in self.adopted else _with_keys(cfg, module, name)
                others += [*_translated_keys(module), *_without_effect(module)]
            except UserError:
                continue
        return cfg, others


def _translated_keys(module: ModuleType) -> frozenset[str]:
    """Gives the keys that the plugin's ``translate(assignments) -> assignments`` replaces."""
    return frozenset(getattr(module, "TRANSLATED_KEYS", ()))


def _without_effect(module: ModuleType) -> Mapping[str, WithoutEffect]:
    """Gives the published keys that the plugin accepts and drops."""
    return getattr(module, "WITHOUT_EFFECT", {})


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


def _find_file(path: Path) -> Path:
    """Finds what projects ship from anywhere: ``projects/x/y.yaml`` may be installed, too.

    Raises:
        ConfigError: if there is neither such a file nor such a project.
    """
    if path.exists() or path.is_absolute() or path.parts[:1] != ("projects",):
        return path
    places = [Path(root, *path.parts[1:]) for root in vidseg.projects.__path__]
    name, known = "".join(path.parts[1:2]), plugin_finder.discover()
    spec = known.get(name)
    if spec is not None and spec.folder is not None:
        places.append(spec.folder.joinpath(*path.parts[2:]))
    found = next(filter(Path.is_file, places), path)
    if found is path and spec is None:
        raise ConfigError(
            f"config file {path} does not exist, and no project {name!r} is in the checkout or "
            f"installed; there are {', '.join(nearest(name, known) or sorted(known))}"
        )
    return found
