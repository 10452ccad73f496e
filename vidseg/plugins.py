"""Projects (plugins): found without importing them, imported only when something needs them.

A plugin is a Python package (or module). Its import is light: it may offer ``add_config(cfg)`` and
``COMPONENTS``, the names of submodules whose import registers components. So that configs of a
published system load unchanged, it may offer ``translate(assignments)`` with ``TRANSLATED_KEYS``,
those which that replaces, and ``WITHOUT_EFFECT``, those which are dropped. It is found in a
``projects`` folder of the checkout or the installed package, through the entry-point group
``vidseg.projects``, by a path or module name given by the user, or in ``VIDSEG_PLUGINS``.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.machinery import PathFinder
from itertools import accumulate, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import vidseg.projects
from vidseg.errors import UserError, nearest
from vidseg.registry import Registry, set_miss_hook

__all__ = [
    "PluginSpec",
    "declare",
    "discover",
    "lazy_exports",
    "load",
    "load_components",
    "load_until_known",
    "plugin_for_config",
]

ENTRY_POINT_GROUP = "vidseg.projects"
ENVIRONMENT_VARIABLE = "VIDSEG_PLUGINS"

logger = logging.getLogger(__name__)

_PACKAGE = "vidseg.projects"
# Modules that offer ``import_registered(kind)``, by the prefix of the names which that registers:
# other libraries' components, looked up when one is asked for and never before.
_BRIDGES = {"d2": "vidseg.interop.detectron2"}
_EXTRA_OF_MODULE = {
    "detectron2": "detectron2",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "open_clip": "clip",
    "timm": "timm",
    "trackeval": "eval",
    "wandb": "wandb",
}


@dataclass(frozen=True)
class PluginSpec:
    """Where a plugin is; nothing of it has been imported for this."""

    name: str
    module: str  # the one name under which it may be imported
    folder: Path | None = None  # holds its config files
    file: Path | None = None  # imported from here if ``module`` is not on the search path
    source: str = "projects"  # how it was found
    rivals: tuple[str, ...] = ()  # where others of the same name are


# Plugins that the user named by path or module, for this process, as sys.modules is.
_named: dict[str, PluginSpec] = {}
# Plugins whose components are being imported or have been; guards against going round in circles.
_started: set[str] = set()


def discover() -> dict[str, PluginSpec]:
    """Gives every plugin that is known, by name, without importing any.

    Raises:
        UserError: if ``VIDSEG_PLUGINS`` names something that does not exist.
    """
    specs: dict[str, PluginSpec] = {}
    for spec in [*_in_search_path(), *_in_entry_points()]:
        first = specs.setdefault(spec.name, spec)
        if first.module != spec.module:
            specs[spec.name] = replace(first, rivals=(*first.rivals, _place(spec)))
    for word in _environment_words():
        spec = _spec_of(word, specs, ENVIRONMENT_VARIABLE)
        specs.setdefault(spec.name, spec)
    return {**specs, **_named}


def plugin_for_config(path: str | os.PathLike[str]) -> str | None:
    """Gives the name of the plugin whose folder holds the config file, if one does."""
    resolved = Path(path).resolve()
    for spec in discover().values():
        if spec.folder is not None and spec.folder.resolve() in resolved.parents:
            return spec.name
    return None


def lazy_exports(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Gives ``__getattr__`` and ``__dir__`` of a package whose import stays light.

    Args:
        package: its ``__name__``.
        modules: submodule of each public name, imported when the name is first used.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names


def load(name_or_path: str) -> ModuleType:
    """Imports a plugin: by name, by the path of its folder or file, or by a module name.

    Raises:
        UserError: if there is no such plugin, several have its name, or its import fails; other
            plugins are unaffected.
    """
    specs = discover()
    spec = _spec_of(name_or_path, specs, "--plugin")
    if spec.rivals:
        places = " and ".join([_place(spec), *spec.rivals])
        raise UserError(
            f"several plugins are called '{spec.name}': {places}; rename or uninstall all but one. "
            "Other plugins are loaded."
        )
    if spec.name not in specs:
        _named[spec.name] = spec
    return _import(spec, spec.module)


def declare(name: str) -> ModuleType:
    """Imports the package of a known plugin, for its config keys; components stay unloaded.

    Raises:
        UserError: if there is no such plugin or its import fails.
    """
    return load(name)


def load_components(names: Iterable[str] | None = None) -> list[str]:
    """Imports the submodules that register components.

    Args:
        names: plugins by name; all that are known if left out.

    Returns:
        One sentence for each plugin that could not be imported.
    """
    failures = []
    for name in list(discover()) if names is None else names:
        try:
            _load_components_of(name)
        except UserError as error:
            logger.warning("%s", error)
            failures.append(str(error))
    return failures


def _load_components_of(name: str) -> None:
    if name in _started:
        return
    _started.add(name)
    try:
        package = load(name)
        spec = discover()[name]
        for component in getattr(package, "COMPONENTS", ()):
            _import(spec, f"{package.__name__}.{component}")
    except UserError:
        _started.discard(name)  # the cause may be mended within the process
        raise


def load_until_known(name: str, names: Container[str]) -> list[str]:
    """Loads the components of plugins until one has registered a name: imported ones first.

    Args:
        name: that is looked for.
        names: what is registered; plugins add to it.

    Returns:
        One sentence for each plugin that could not be imported.
    """
    specs = discover().values()
    remarks: list[str] = []
    for spec in sorted(specs, key=lambda spec: spec.module not in sys.modules):
        if name in names:
            break
        remarks += load_components([spec.name])
    return remarks


def _on_miss(registry: Registry[Any], name: str) -> list[str]:
    prefix, slash, _ = name.partition("/")
    if slash and prefix in _BRIDGES:
        return _cross(_BRIDGES[prefix], registry.name, name)
    return load_until_known(name, registry)


def _cross(bridge: str, kind: str, name: str) -> list[str]:
    """Registers all that a bridge has of a kind; gives what kept it from doing so."""
    try:
        importlib.import_module(bridge).import_registered(kind)
    except ImportError as error:
        raise UserError(f"{kind} {name} cannot be built: {error}") from error
    return []


set_miss_hook(_on_miss)


def _in_search_path() -> list[PluginSpec]:
    specs = []
    for root in map(Path, vidseg.projects.__path__):
        for init in sorted(root.glob("*/__init__.py")):
            name = init.parent.name
            if name.isidentifier():
                specs.append(PluginSpec(name, f"{_PACKAGE}.{name}", init.parent))
    return specs


def _in_entry_points() -> list[PluginSpec]:
    specs = []
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        module = entry.value.split(":")[0]
        folder = _folder_of_module(module)
        specs.append(PluginSpec(entry.name, module, folder, source="entry point"))
    return specs


def _place(spec: PluginSpec) -> str:
    return f"{spec.module} in {spec.folder}" if spec.folder else spec.module


def _environment_words() -> list[str]:
    words = re.split(f"[,{os.pathsep}]", os.environ.get(ENVIRONMENT_VARIABLE, ""))
    return [word.strip() for word in words if word.strip()]


def _spec_of(word: str, known: dict[str, PluginSpec], origin: str) -> PluginSpec:
    """Gives the spec for a name, a path or a module name."""
    if word in known:
        return known[word]
    path = Path(word).expanduser()
    if path.exists():
        return _spec_of_path(path.resolve(), known, origin)
    if not os.path.dirname(word) and _folder_of_module(word) is not None:
        return PluginSpec(word.rpartition(".")[2], word, _folder_of_module(word), source=origin)
    close = nearest(word, known)
    hint = f"; nearest: {', '.join(close)}" if close else f"; known: {', '.join(known) or 'none'}"
    raise UserError(f"{origin}: {word!r} is no plugin, path or importable module{hint}")


def _spec_of_path(path: Path, known: dict[str, PluginSpec], origin: str) -> PluginSpec:
    for spec in known.values():
        if spec.folder is not None and spec.folder.resolve() == path:
            return spec
    file = path / "__init__.py" if path.is_dir() else path
    name = path.name if path.is_dir() else path.stem
    if not file.is_file() or file.suffix != ".py":
        inner = next(iter(path.glob("*/__init__.py")), None)  # of a distribution
        hint = f"; name the one in it, {inner.parent}" if inner else ""
        raise UserError(f"{origin}: {path} is no Python package: it has no __init__.py{hint}")
    if not name.isidentifier():
        raise UserError(f"{origin}: {path} cannot be imported, rename it to a Python identifier")
    if name in known and known[name].file != file:
        raise UserError(
            f"{origin}: {path} has the name of another plugin, {known[name].folder}; rename it"
        )
    return PluginSpec(name, f"{_PACKAGE}.{name}", file.parent, file, source=origin)


def _folder_of_module(module: str) -> Path | None:
    """Finds where a module is; the packages that it lies in are not imported for this."""
    names = list(accumulate(module.split("."), "{}.{}".format))
    try:
        found = importlib.util.find_spec(names[0])
        for package, name in pairwise(names):
            if package in sys.modules:
                found = importlib.util.find_spec(name)
            elif found is not None and found.submodule_search_locations:
                found = PathFinder.find_spec(name, found.submodule_search_locations)
            else:
                return None
    except (ImportError, ValueError):
        return None
    return Path(found.origin).parent if found is not None and found.origin else None


def _import(spec: PluginSpec, module: str) -> ModuleType:
    try:
        if spec.file is not None and module == spec.module:
            return _import_file(spec.file, module)
        return importlib.import_module(module)
    except UserError:
        raise
    except Exception as error:  # whatever a plugin does wrong must not take the others down
        raise UserError(_failure(spec, error)) from error


def _import_file(file: Path, module: str) -> ModuleType:
    if module in sys.modules:
        return sys.modules[module]
    is_package = file.name == "__init__.py"
    found = importlib.util.spec_from_file_location(
        module, file, submodule_search_locations=[str(file.parent)] if is_package else None
    )
    assert found is not None
    assert found.loader is not None
    loaded = importlib.util.module_from_spec(found)
    sys.modules[module] = loaded
    try:
        found.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise
    return loaded


def _failure(spec: PluginSpec, error: Exception) -> str:
    missing = (error.name or "").split(".")[0] if isinstance(error, ImportError) else ""
    what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    extra = _EXTRA_OF_MODULE.get(missing)
    hint = f"; install vidseg[{extra}]" if extra else ""
    return f"plugin '{spec.name}' failed to import: {what}{hint}. Other plugins are loaded."
