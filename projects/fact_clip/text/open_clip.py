"""The text encoders of open_clip: CLIP, SigLIP and their kin.

Source: Cherti et al., "Reproducible Scaling Laws for Contrastive Language-Image Learning", CVPR
2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from vidseg.errors import ConfigError, nearest

from .encoder import TextEncoder
from .pretrained import encode_batches, file_identity, import_library, loading, version
from .registry import TEXT_PROVIDERS

if TYPE_CHECKING:
    from torch import Tensor

    from .embedding import TextSettings

__all__ = ["DEFAULT_MODEL", "OpenCLIP"]

DEFAULT_MODEL = "ViT-B-32/laion2b_s34b_b79k"

_SCHEMAS = ("hf-hub:", "local-dir:")  # names that bring their weights, without a tag


@TEXT_PROVIDERS.register(name="open_clip")
class OpenCLIP(TextEncoder):
    """Encodes texts into the space that a model of open_clip shares with pictures.

    Args:
        model: ``ARCHITECTURE/TAG``; without a tag if there is a file, or for names of the forms
            ``hf-hub:OWNER/NAME`` and ``local-dir:FOLDER``.
        file: of weights, in the place of those of the tag.
    """

    reads: ClassVar[tuple[str, ...]] = ("text_file", "text_model")

    def __init__(self, model: str = DEFAULT_MODEL, file: str | Path = "") -> None:
        self.model = model
        self.file = str(file)
        if model.startswith(_SCHEMAS):
            self._name, self._tag = model, ""
        else:
            self._name, _, self._tag = model.partition("/")

    @classmethod
    def from_settings(cls, settings: TextSettings) -> OpenCLIP:
        """Reads the names; a folder stands for a model that is saved in it.

        Raises:
            ConfigError: if file and name contradict one another.
        """
        path = settings.path if settings.file else None
        if path is not None and path.is_dir():
            if settings.model:
                raise ConfigError(
                    f"CLIP.text_file {settings.file} is a folder that brings its model; clear "
                    "CLIP.text_model"
                )
            return cls(f"local-dir:{path}")
        if path is not None and not path.is_file():
            raise ConfigError(f"CLIP.text_file {settings.file} does not exist")
        return cls(settings.model or DEFAULT_MODEL, path or "")

    def identity(self) -> dict[str, Any]:
        """Gives names and files of the model, and what reads them."""
        folder = self.model.removeprefix("local-dir:") if "local-dir:" in self.model else ""
        files = [file_identity(Path(name)) for name in (self.file, folder) if name]
        model = self._name if self.file else self.model
        return {"open_clip": [model, files], "library": version("open_clip_torch")}

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """Gives the embeddings, ``(len(texts), E)``.

        Raises:
            UserError: if open_clip, the model or the weights are missing.
        """
        library = import_library("open_clip", "open_clip")
        weights = self._weights(library)
        with loading(self.file or self.model, "an open_clip model"):
            model = library.create_model(
                self._name, pretrained=weights, weights_only=True, require_pretrained=True
            )
            tokenizer = library.get_tokenizer(self._name)
        model = model.float().eval()

        def encode(batch: list[str]) -> Tensor:
            embeds: Tensor = model.encode_text(tokenizer(batch))
            return embeds

        return encode_batches(texts, encode)

    def _weights(self, library: Any) -> str | None:
        """Gives file or tag, after both names were checked."""
        if self._name.startswith(_SCHEMAS):
            return None
        known = library.list_models()
        if self._name not in known:
            close = ", ".join(nearest(self._name, known)) or "none"
            raise ConfigError(
                f"CLIP.text_model {self.model}: open_clip has no model {self._name!r}; nearest: "
                f"{close}"
            )
        if self.file:
            return self.file
        tags = library.list_pretrained_tags_by_model(self._name)
        if self._tag not in tags:
            close = ", ".join(nearest(self._tag, tags) or tags[:3]) or "none; give CLIP.text_file"
            raise ConfigError(
                f"CLIP.text_model {self.model}: {self._name} has no weights {self._tag!r}; "
                f"nearest: {close}"
            )
        return self._tag
