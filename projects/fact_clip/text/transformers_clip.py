"""The text encoder of CLIP as the transformers library has it.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from vidseg.errors import ConfigError

from .encoder import TextEncoder
from .pretrained import encode_batches, file_identity, version
from .registry import TEXT_PROVIDERS
from .transformers_models import load_transformers

if TYPE_CHECKING:
    from torch import Tensor

    from .embedding import TextSettings

__all__ = ["DEFAULT_MODEL", "TransformersCLIP"]

DEFAULT_MODEL = "openai/clip-vit-base-patch32"


@TEXT_PROVIDERS.register(name="transformers_clip")
class TransformersCLIP(TextEncoder):
    """Encodes texts into the space that CLIP shares with pictures.

    Args:
        source: folder of the model, or its name on the hub.
    """

    reads: ClassVar[tuple[str, ...]] = ("text_file", "text_model")

    def __init__(self, source: str = DEFAULT_MODEL) -> None:
        self.source = source

    @classmethod
    def from_settings(cls, settings: TextSettings) -> TransformersCLIP:
        """Reads folder or name.

        Raises:
            ConfigError: if both are given, or the folder does not exist.
        """
        if settings.file and settings.model:
            raise ConfigError("CLIP.text_file and CLIP.text_model both name a model; clear one")
        if settings.file and not settings.path.is_dir():
            raise ConfigError(f"CLIP.text_file {settings.file} is no folder of a model")
        return cls(str(settings.path) if settings.file else settings.model or DEFAULT_MODEL)

    def identity(self) -> dict[str, Any]:
        """Gives the files or the name of the model, and what reads it."""
        path = Path(self.source)
        source = file_identity(path) if path.is_dir() else self.source
        return {"transformers_clip": source, "transformers": version("transformers")}

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """Gives the projected embeddings, ``(len(texts), E)``.

        Raises:
            UserError: if transformers or the weights are missing.
        """
        # The model with both halves returns another type for text features in each major version.
        tokenizer, model = load_transformers(
            self.source, "CLIPTextModelWithProjection", "transformers_clip"
        )

        def encode(batch: list[str]) -> Tensor:
            words = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            embeds: Tensor = model(**words).text_embeds
            return embeds

        return encode_batches(texts, encode)
