"""From names of classes to what a text encoder is asked (prompt ensembles as of CLIP).

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021, section 3.1.4: a class is the mean of the embeddings of several prompts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vidseg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["BACKGROUND", "Prompts"]

BACKGROUND = "background, no action"
"""How the absence of an action is spelled out."""

_PLACE = "{}"
_NAMES_OF_BACKGROUND = ("background", "bg", "sil")  # the last is that of Breakfast

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompts:
    """Says what stands for a class in text.

    Attributes:
        templates: each with ``{}`` where the phrase goes.
        name_map: phrases of names that do not speak for themselves.

    Raises:
        ConfigError: if there is no template, or one has no place for the phrase.
    """

    templates: tuple[str, ...] = (_PLACE,)
    name_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.templates:
            raise ConfigError(f'CLIP.templates is empty; write "[{_PLACE!r}]" for the bare name')
        for template in self.templates:
            if _PLACE not in template:
                raise ConfigError(
                    f"CLIP.templates: {template!r} has no {_PLACE} where the class goes"
                )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Prompts:
        """Reads ``CLIP.templates`` and ``CLIP.name_map``."""
        return cls(
            templates=tuple(map(str, cfg.CLIP.templates)), name_map=_read_map(cfg.CLIP.name_map)
        )

    def phrase(self, name: str) -> str:
        """Gives the phrase of a class: that of the map, else the name with spaces."""
        if name in self.name_map:
            return self.name_map[name]
        if name.lower() in _NAMES_OF_BACKGROUND:
            return BACKGROUND
        return " ".join(name.replace("_", " ").split())

    def texts(self, name: str) -> list[str]:
        """Gives the prompts of a class, one for each template."""
        phrase = self.phrase(name)
        return [template.replace(_PLACE, phrase) for template in self.templates]

    def tell_unused(self, names: Sequence[str]) -> None:
        """Warns of names in the map that no class has."""
        for name in self.name_map.keys() - set(names):
            close = nearest(name, names)
            hint = f"; nearest: {', '.join(close)}" if close else ""
            _logger.warning("CLIP.name_map: no class is called %r%s", name, hint)


def _read_map(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in map(str, pairs):
        name, sign, phrase = (part.strip() for part in pair.partition("="))
        if not (name and sign and phrase):
            raise ConfigError(f"CLIP.name_map: {pair!r} is no pair; write 'name of class=phrase'")
        if name in found:
            raise ConfigError(f"CLIP.name_map names {name!r} twice")
        found[name] = phrase
    return found
