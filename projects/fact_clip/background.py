"""Which classes are background: ``bg_class`` of a config, by number or name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vidseg.errors import ConfigError, nearest

__all__ = ["background_classes"]


def background_classes(bg_class: Iterable[int | str] | None, classes: Sequence[str]) -> list[int]:
    """Gives the numbers of the background classes, ascending.

    Args:
        bg_class: numbers or names; None stands for class 0.
        classes: names by number; empty if they are not known.

    Raises:
        ConfigError: if there is no such class, or it is no list.
    """
    if isinstance(bg_class, str | int):
        raise ConfigError(f"bg_class is {bg_class!r}; write a list: [{bg_class}]")
    numbers = set()
    for one in [0] if bg_class is None else bg_class:
        if isinstance(one, str):
            if one not in classes:
                close = nearest(one, classes) or list(classes[:3])
                raise ConfigError(
                    f"bg_class: no class is called {one!r}; nearest: {', '.join(close)}"
                )
            numbers.add(classes.index(one))
        elif 0 <= one < len(classes) or not classes:
            numbers.add(int(one))
        else:
            raise ConfigError(
                f"bg_class: {one} is not one of the {len(classes)} classes, which count from 0; "
                "without background set []"
            )
    return sorted(numbers)
