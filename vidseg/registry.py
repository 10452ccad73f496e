"""Names to components, with misses that help.

A registry is filled by importing the modules whose components carry ``@REGISTRY.register()``.
On a miss it asks a hook (installed by ``vidseg.plugins``) to import the projects that are known
but not loaded yet, before it gives up with the nearest names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from vidseg.errors import UserError, nearest

__all__ = ["MissHook", "Registry", "set_miss_hook"]

T = TypeVar("T")

# Called with the registry and the unknown name; may import modules; returns remarks for the error
# message, such as which project could not be imported.
MissHook = Callable[["Registry[Any]", str], Sequence[str]]

_PROJECT_PREFIX = "vidseg.projects."


class Registry(Generic[T]):
    """Maps published names to components of one kind.

    Args:
        name: the kind, for messages, e.g. ``"META_ARCH"``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._objects: dict[str, T] = {}

    def register(self, obj: T | None = None, *, name: str | None = None) -> Any:
        """Adds a component, as a decorator or by a call.

        Args:
            obj: the component; left out in the decorator form ``@REGISTRY.register()``.
            name: the name to register under, the object's own ``__name__`` if left out.

        Returns:
            The component itself, or a decorator that returns it.

        Raises:
            ValueError: if a different component already has that name. The same one, known by
                module and qualified name, replaces the old: a reloaded notebook cell may run again.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name if name is not None else str(getattr(obj, "__name__", obj))
        taken = self._objects.get(key)
        if taken is not None and _identity(taken) != _identity(obj):
            raise ValueError(
                f"{self.name} '{key}' is registered twice: "
                f"{_location(taken)} and {_location(obj)}; rename one of them"
            )
        self._objects[key] = obj
        return obj

    def get(self, name: str) -> T:
        """Gives the component of that name, loading known projects if that is what it takes.

        Raises:
            UserError: if no known project has it; names the nearest ones and all that exist.
        """
        remarks: Sequence[str] = ()
        if name not in self._objects and _hooks:
            remarks = _hooks[-1](self, name)
        if name not in self._objects:
            raise UserError(self._miss_message(name, remarks))
        return self._objects[name]

    def names(self) -> list[str]:
        """Gives the names known so far, sorted."""
        return sorted(self._objects)

    def provider(self, name: str) -> str:
        """Gives the project that registered ``name``, ``""`` for the core."""
        module = _identity(self._objects[name])[0]
        return module[len(_PROJECT_PREFIX) :].split(".")[0] if _is_project(module) else ""

    def __contains__(self, name: object) -> bool:
        return name in self._objects

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return iter(self._objects.items())

    def __len__(self) -> int:
        return len(self._objects)

    def __repr__(self) -> str:
        return f"Registry({self.name!r}: {', '.join(self.names()) or 'empty'})"

    def _miss_message(self, name: str, remarks: Sequence[str]) -> str:
        close = [self._described(choice) for choice in nearest(name, self._objects)]
        message = f"{self.name} {name!r} is not registered"
        if close:
            message += f"; nearest: {', '.join(close)}"
        message += f". Known: {', '.join(self.names()) or 'none'}"
        return "; ".join([message, *remarks])

    def _described(self, name: str) -> str:
        project = self.provider(name)
        return f"{name} (project {project})" if project else name


_hooks: list[MissHook] = []


def set_miss_hook(hook: MissHook | None) -> None:
    """Installs what every registry asks before a miss becomes an error; ``None`` removes it.

    Kept as one process-wide slot because registries are created all over the package, long before
    anybody knows which plugins there are.
    """
    _hooks[:] = [] if hook is None else [hook]


def _is_project(module: str) -> bool:
    return module.startswith(_PROJECT_PREFIX)


def _identity(obj: object) -> tuple[str, str]:
    module = str(getattr(obj, "__module__", type(obj).__module__))
    return module, str(getattr(obj, "__qualname__", repr(obj)))


def _location(obj: object) -> str:
    module, qualified_name = _identity(obj)
    try:
        source = inspect.getsourcefile(obj)  # type: ignore[arg-type]
        line = inspect.getsourcelines(obj)[1]  # type: ignore[arg-type]
    except (TypeError, OSError):
        return f"{module}.{qualified_name}"
    return f"{module}.{qualified_name} ({source}:{line})"
