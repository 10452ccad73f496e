"""What a case consists of, and how it says what it lacks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "Checkout", "Package", "Prepare", "Run", "peers_folder"]

Run = Callable[[], object]
"""The call that is measured."""

Prepare = Callable[[], Run]
"""Builds what the call needs; not measured."""


@dataclass(frozen=True)
class Package:
    """A peer that Python imports.

    Args:
        module: name to import.
        install: the command that installs it.
    """

    module: str
    install: str

    def missing(self) -> str | None:
        """Says what to do if it is not there."""
        if importlib.util.find_spec(self.module) is not None:
            return None
        return f"{self.module} is not installed: {self.install}"


@dataclass(frozen=True)
class Checkout:
    """A peer that is no package: a folder under ``peers_folder()``.

    Args:
        folder: its name there.
        url: where git clones it from.
        holds: a file in it that the case needs.
    """

    folder: str
    url: str
    holds: str

    @property
    def path(self) -> Path:
        """Where it should be."""
        return peers_folder() / self.folder

    def missing(self) -> str | None:
        """Says what to do if it is not there."""
        if (self.path / self.holds).exists():
            return None
        return f"{self.path / self.holds} does not exist: git clone {self.url} {self.path}"


@dataclass(frozen=True)
class Case:
    """One comparison; the package's docstring shows how to write one.

    Args:
        name: unique within all groups.
        about: what runs, with sizes.
        peer: what it is compared with.
        bars: what is measured, ``"cpu"`` or ``"peak"``, and the promised ratio of each.
        ours: prepares our side.
        theirs: prepares the peer's side.
        needs: what must be there for the peer.
        repeats: measured repetitions of each side.
        warmups: repetitions before them that are not measured.
    """

    name: str
    about: str
    peer: str
    bars: Mapping[str, float]
    ours: Prepare
    theirs: Prepare
    needs: tuple[Package | Checkout, ...] = ()
    repeats: int = 7
    warmups: int = 1

    def __post_init__(self) -> None:
        if not self.bars or not set(self.bars) <= {"cpu", "peak"}:
            raise ValueError(
                f"case {self.name} measures {sorted(self.bars)}; set cpu, peak or both"
            )

    def missing(self) -> list[str]:
        """Says what to install or fetch before this case can run."""
        return [said for need in self.needs if (said := need.missing()) is not None]


def peers_folder() -> Path:
    """Gives the folder of peers that are no packages: ``$VIDSEG_PEERS``, else in the cache."""
    named = os.environ.get("VIDSEG_PEERS")
    return Path(named) if named else Path.home() / ".cache" / "vidseg" / "peers"
