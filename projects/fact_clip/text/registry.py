"""What gives classes their embeddings, by ``CLIP.text_provider``.

Shapes: C classes, E width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from numpy.typing import NDArray

from vidseg.registry import Registry

if TYPE_CHECKING:
    from .embedding import TextSettings
    from .prompts import Prompts

__all__ = ["TEXT_PROVIDERS", "TextProvider"]


class TextProvider(Protocol):
    """Gives classes their embeddings.

    Attributes:
        reads: keys of ``CLIP`` besides ``embed_dim`` and those of prompts that it has a use for.
    """

    reads: ClassVar[tuple[str, ...]]

    @classmethod
    def from_settings(cls, settings: TextSettings) -> TextProvider:
        """Builds it; what takes time waits until it is needed."""

    def embed(self, names: Sequence[str], prompts: Prompts) -> NDArray[Any]:
        """Gives real numbers ``(C, E)``, a row for each name.

        Args:
            names: of the classes, no two alike.
            prompts: what stands for them in text.
        """


TEXT_PROVIDERS: Registry[type[TextProvider]] = Registry("TEXT_PROVIDER")
"""Text encoders and files of embeddings, by ``CLIP.text_provider``."""
