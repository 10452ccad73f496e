"""A bounded choice from a sequence whose length nobody knows."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Thinned"]

_Item = TypeVar("_Item")


class Thinned(Generic[_Item]):
    """Keeps at most so many items at even steps: all, then every second, then every fourth, ...

    Args:
        max_num: that are kept, at least 2.

    Attributes:
        items: kept so far.
    """

    def __init__(self, max_num: int) -> None:
        self.items: list[_Item] = []
        self._max_num, self._every, self._num = max_num, 1, 0

    @property
    def takes_next(self) -> bool:
        """Whether the next item is kept, if only for now; another one need not be made."""
        return self._num % self._every == 0

    def add(self, item: _Item) -> None:
        """Takes the next item or passes it over."""
        if self.takes_next and len(self.items) == self._max_num:
            self.items, self._every = self.items[::2], 2 * self._every
        if self.takes_next:  # still, if room had to be made
            self.items.append(item)
        self._num += 1

    def skip(self) -> None:
        """Passes the next item over, where ``takes_next`` is false."""
        self._num += 1
