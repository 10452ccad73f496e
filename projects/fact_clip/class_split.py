"""Which classes train without labels: the unseen ones and, to find gamma, pseudo-unseen ones.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.data.catalog import dataset_root
from vidseg.errors import ConfigError, nearest
from vidseg.files import read_json

from .text.prompts import Prompts

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["ClassSplit", "held_out_classes"]

UNSEEN_MODES = ("mask", "drop")


@dataclass(frozen=True)
class ClassSplit:
    """Classes by their role in zero-shot training.

    Attributes:
        classes: all names, in the order of their numbers.
        unseen: numbers of the classes without training labels.
        pseudo_unseen: numbers of further classes that train like unseen ones.
    """

    classes: tuple[str, ...]
    unseen: tuple[int, ...] = ()
    pseudo_unseen: tuple[int, ...] = ()

    @classmethod
    def from_config(
        cls, cfg: CfgNode, classes: Sequence[str], background: Sequence[int]
    ) -> ClassSplit:
        """Reads ``CLIP.unseen`` and ``CLIP.pseudo_unseen``.

        Args:
            cfg: of the run.
            classes: names of all classes.
            background: numbers of the background classes, which cannot be unseen.

        Raises:
            ConfigError: if a name is no class, is background, or stands in both lists, or no class
                is left to train on.
            DataError: if a file that is named cannot be read.
        """
        unseen = _numbers("CLIP.unseen", cfg.CLIP.unseen, classes)
        pseudo = _numbers("CLIP.pseudo_unseen", cfg.CLIP.pseudo_unseen, classes)
        for key, numbers in (("CLIP.unseen", unseen), ("CLIP.pseudo_unseen", pseudo)):
            for number in numbers:
                if number in background:
                    raise ConfigError(
                        f"{key} names {classes[number]}, which is background (bg_class): it "
                        "belongs to neither the seen nor the unseen classes"
                    )
        both = [classes[number] for number in pseudo if number in unseen]
        if both:
            raise ConfigError(f"{both[0]} stands in CLIP.unseen and in CLIP.pseudo_unseen")
        held_out = {*unseen, *pseudo}
        if held_out and not set(range(len(classes))) - held_out - {*background}:
            key = "CLIP.unseen" if unseen else "CLIP.pseudo_unseen"
            raise ConfigError(f"{key} leaves no class to train on; take some out of the list")
        return cls(tuple(classes), unseen, pseudo)

    @property
    def held_out(self) -> frozenset[int]:
        """Numbers of the classes whose labels training does not see."""
        return frozenset((*self.unseen, *self.pseudo_unseen))

    def is_seen(self, name: str) -> bool:
        """Whether training sees labels of a class of this name, be it with spaces or _."""
        phrase = Prompts().phrase(name)
        return any(
            number not in self.held_out and Prompts().phrase(known) == phrase
            for number, known in enumerate(self.classes)
        )


def held_out_classes(cfg: CfgNode, classes: Sequence[str]) -> frozenset[int]:
    """Gives the numbers of the classes of a training set whose labels training does not see.

    Names that the set lacks are passed over: models compare them with their own classes.

    Args:
        cfg: of the run; none are held out unless it is of ``FACT_CLIP``.
        classes: names of the classes of the set.

    Raises:
        DataError: if a file that is named cannot be read.
    """
    if cfg.MODEL.META_ARCHITECTURE != "FACT_CLIP" or not cfg.CLIP.enable:
        return frozenset()
    names = {
        name for key in ("unseen", "pseudo_unseen") for name in _names(f"CLIP.{key}", cfg.CLIP[key])
    }
    return frozenset(number for number, name in enumerate(classes) if name in names)


def _names(key: str, entries: Sequence[str]) -> list[str]:
    names: list[str] = []
    for entry in entries:
        names += _names_of_file(key, entry) if ".json:" in str(entry) else [str(entry)]
    return names


def _numbers(key: str, entries: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    names = _names(key, entries)
    for name in names:
        if name not in classes:
            close = nearest(name, classes)
            hint = f"; nearest: {', '.join(close)}" if close else ""
            raise ConfigError(f"{key} names {name!r}, which is no class of the training set{hint}")
    return tuple(sorted({classes.index(name) for name in names}))


def _names_of_file(key: str, entry: str) -> list[str]:
    """Reads ``FILE.json:KEY``: a list of names, or an object that holds one as ``unseen``."""
    file, _, name = entry.rpartition(":")
    path = Path(file)
    path = path if path.exists() else dataset_root() / file
    content = read_json(path, what="list of classes")
    if not isinstance(content, dict) or name not in content:
        known = list(map(str, content)) if isinstance(content, dict) else []
        close = nearest(name, known)
        others = ", ".join(known[:5]) or "no keys"
        hint = f"; nearest: {', '.join(close)}" if close else f"; it has {others}"
        raise ConfigError(f"{key}: {path} holds no {name!r}{hint}")
    found = content[name]
    found = found.get("unseen") if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{key}: {name!r} of {path} is no list of class names")
    return found
