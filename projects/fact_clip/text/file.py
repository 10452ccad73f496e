"""Embeddings that were made elsewhere, in a ``.npz`` file with ``embeddings`` and ``names``.

Shapes: C classes, E width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidseg.errors import ConfigError, DataError, nearest
from vidseg.files import write_atomically

from .prompts import Prompts
from .registry import TEXT_PROVIDERS

if TYPE_CHECKING:
    from .embedding import TextSettings

__all__ = ["EmbeddingsFile", "write_embeddings"]

_WAY_OUT = "`python -m vidseg.projects.fact_clip embed` makes a file"


@TEXT_PROVIDERS.register(name="file")
class EmbeddingsFile:
    """Looks classes up in a file, which may know more of them and in any order.

    Args:
        path: of the ``.npz``: ``embeddings`` ``(C, E)`` and ``names`` ``(C,)``, which is text.
    """

    reads: ClassVar[tuple[str, ...]] = ("text_file",)

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def from_settings(cls, settings: TextSettings) -> EmbeddingsFile:
        """Reads where the file is.

        Raises:
            ConfigError: if none is named.
        """
        if not settings.file:
            raise ConfigError(f"CLIP.text_provider file needs CLIP.text_file, a .npz; {_WAY_OUT}")
        return cls(settings.path)

    def embed(self, names: Sequence[str], prompts: Prompts) -> NDArray[Any]:
        """Gives the rows of the classes; a name counts as it stands, or else as its phrase.

        Args:
            names: of the classes.
            prompts: of which only the phrases matter; templates were filled in elsewhere.

        Returns:
            ``(C, E)``.

        Raises:
            DataError: if the file is missing, damaged, inconsistent or lacks a class.
        """
        vectors, known = self._read()
        by_name = {name: row for row, name in enumerate(known)}
        by_phrase = {Prompts().phrase(name): row for name, row in by_name.items()}
        rows = []
        for name in names:
            row = by_name.get(name, by_phrase.get(prompts.phrase(name)))
            if row is None:
                close = ", ".join(nearest(name, known)) or f"none of its {len(known)} is like it"
                raise DataError(
                    f"{self.path} has no embedding of the class {name!r}; nearest: {close}; "
                    f"{_WAY_OUT}"
                )
            rows.append(row)
        return vectors[rows]

    def _read(self) -> tuple[NDArray[Any], list[str]]:
        try:
            content = np.load(self.path, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise DataError(f"{self.path} is one bare array, without names; {_WAY_OUT}")
            with content:
                arrays = {key: content[key] for key in ("embeddings", "names") if key in content}
                found = ", ".join(content.files) or "nothing"
        except FileNotFoundError:
            raise DataError(f"CLIP.text_file {self.path} does not exist; {_WAY_OUT}") from None
        except DataError:
            raise
        except Exception as error:  # a damaged file can raise nearly anything
            if "Object arrays" in str(error):
                reason = "it holds pickled objects; save the names as an array of text"
            else:
                reason = getattr(error, "strerror", None) or "it is damaged or no .npz file"
            raise DataError(f"{self.path} cannot be read: {reason}") from error
        if len(arrays) < 2:
            raise DataError(
                f"{self.path} needs the arrays embeddings and names, found {found}; {_WAY_OUT}"
            )
        self._check(arrays["embeddings"], arrays["names"])
        return arrays["embeddings"], [str(name) for name in arrays["names"]]

    def _check(self, vectors: NDArray[Any], names: NDArray[Any]) -> None:
        if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
            raise DataError(
                f"{self.path}: embeddings has shape {vectors.shape} and type {vectors.dtype}, "
                "expected real numbers (classes, width)"
            )
        if names.ndim != 1 or names.dtype.kind != "U":
            raise DataError(
                f"{self.path}: names has shape {names.shape} and type {names.dtype}, expected text "
                "(classes,)"
            )
        if len(vectors) != len(names):
            raise DataError(f"{self.path} has {len(vectors)} embeddings, but {len(names)} names")
        unique, counts = np.unique(names, return_counts=True)
        if len(unique) < len(names):
            raise DataError(f"{self.path} names {str(unique[counts.argmax()])!r} twice")
        sound = np.isfinite(vectors).all(1) & vectors.any(1)
        if not sound.all():
            name = str(names[int(np.argmin(sound))])
            raise DataError(
                f"{self.path}: the embedding of {name!r} is zero or holds NaN or infinity"
            )


def write_embeddings(
    path: Path, vectors: NDArray[Any], names: Sequence[str], templates: Sequence[str]
) -> None:
    """Writes a file of embeddings, whole or not at all.

    Args:
        path: of the ``.npz``.
        vectors: ``(C, E)``.
        names: C of them.
        templates: that the embeddings are means over, for whoever opens the file.

    Raises:
        OSError: if the disk is full or not writable.
    """
    write_atomically(
        path,
        lambda file: np.savez(
            file, embeddings=vectors, names=np.array(names), templates=np.array(templates)
        ),
    )
