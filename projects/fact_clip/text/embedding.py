"""Embeddings of classes, by the provider that the config names.

Shapes: C classes, E width of the embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseg.data import dataset_root
from vidseg.errors import ConfigError, UserError

from .prompts import Prompts
from .registry import TEXT_PROVIDERS

if TYPE_CHECKING:
    from torch import Tensor

    from vidseg.config import CfgNode

__all__ = ["TextSettings", "embed_classes", "embed_names"]

_logger = logging.getLogger(__name__)

_SAME = 1e-6  # 1 - cosine of embeddings that cannot be told apart


@dataclass(frozen=True)
class TextSettings:
    """Where embeddings come from; a model keeps it, to take other classes later.

    Attributes:
        provider: name in ``TEXT_PROVIDERS``.
        file: embeddings, weights or the folder of a model, as the provider wants it.
        model: name of a published model, for providers that know several.
        embed_dim: width of the embeddings; 0: what the provider gives.
        prompts: what stands for a class in text.
    """

    provider: str = "words"
    file: str = ""
    model: str = ""
    embed_dim: int = 0
    prompts: Prompts = field(default_factory=Prompts)

    def __post_init__(self) -> None:
        if self.embed_dim < 0:
            raise ConfigError(f"CLIP.embed_dim {self.embed_dim} is negative; 0 lets the text say")

    @property
    def path(self) -> Path:
        """Where ``file`` is: as given, else below the data set root."""
        given = Path(self.file).expanduser()
        below = dataset_root() / given
        return below if below.exists() and not given.exists() else given

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TextSettings:
        """Reads what ``CLIP`` says of text."""
        return cls(
            provider=cfg.CLIP.text_provider,
            file=cfg.CLIP.text_file,
            model=cfg.CLIP.text_model,
            embed_dim=cfg.CLIP.embed_dim,
            prompts=Prompts.from_config(cfg),
        )


def embed_classes(cfg: CfgNode, names: Sequence[str]) -> Tensor:
    """Gives the text embeddings of classes as the config wants them.

    Args:
        cfg: of which ``CLIP`` is read.
        names: of the classes, in the order of the rows.

    Returns:
        float32 ``(C, E)``, rows of length 1, on the CPU.

    Raises:
        UserError: see ``embed_names``.
    """
    import torch

    return torch.from_numpy(embed_names(TextSettings.from_config(cfg), names))


def embed_names(settings: TextSettings, names: Sequence[str]) -> NDArray[np.float32]:
    """Gives the text embeddings of classes.

    Args:
        settings: where they come from.
        names: of the classes, in the order of the rows.

    Returns:
        ``(C, E)``, rows of length 1.

    Raises:
        UserError: if names are missing or double, the provider is unknown or lacks what it needs,
            or the embeddings do not fit.
    """
    names = [str(name) for name in names]
    _check_names(names)
    settings.prompts.tell_unused(names)
    kind = TEXT_PROVIDERS.get(settings.provider)
    for key, value in (("text_file", settings.file), ("text_model", settings.model)):
        if value and key not in kind.reads:
            raise ConfigError(
                f"CLIP.{key} is {value!r}, which CLIP.text_provider {settings.provider} does not "
                "read; clear it or choose another provider"
            )
    provider = kind.from_settings(settings)
    vectors = unit_rows(provider.embed(names, settings.prompts), names, settings.provider)
    width = vectors.shape[1]
    if settings.embed_dim not in (0, width):
        raise ConfigError(
            f"CLIP.embed_dim is {settings.embed_dim}, but the text provider {settings.provider} "
            f"gives {width} numbers per class; set it to {width}, or to 0 for what comes"
        )
    _tell_twins(vectors, names)
    return vectors


def unit_rows(vectors: NDArray[Any], names: Sequence[str], provider: str) -> NDArray[np.float32]:
    """Gives rows of length 1.

    Raises:
        UserError: if a row has no direction.
    """
    exact = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    sound = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
    if not sound.all():
        name = names[int(np.argmin(sound))]
        raise UserError(f"the text provider {provider} gives no direction for the class {name!r}")
    return (exact / lengths).astype(np.float32)


def _check_names(names: list[str]) -> None:
    if not names:
        raise UserError("there are no classes to embed")
    seen = set()
    for name in names:
        if not name.strip():
            raise UserError(f"the name of class {names.index(name)} is empty")
        if name in seen:
            raise UserError(f"two classes are called {name!r}")
        seen.add(name)


def _tell_twins(vectors: NDArray[np.float32], names: Sequence[str]) -> None:
    alike = np.triu(vectors @ vectors.T, 1) > 1 - _SAME
    for first, second in np.argwhere(alike):
        _logger.warning(
            "classes %r and %r have the same text embedding and cannot be told apart; give one "
            "another phrase (CLIP.name_map)",
            names[first],
            names[second],
        )
