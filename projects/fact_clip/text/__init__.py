"""Text embeddings of classes: prompts, encoders and files of embeddings.

Importing the package is light; an encoder brings its library when it first encodes something.
"""

from . import file, hash, open_clip, sentence, transformers_clip, words
from .embedding import TextSettings, embed_classes, embed_names
from .prompts import Prompts
from .registry import TEXT_PROVIDERS, TextProvider

__all__ = [
    "TEXT_PROVIDERS",
    "Prompts",
    "TextProvider",
    "TextSettings",
    "embed_classes",
    "embed_names",
    "file",
    "hash",
    "open_clip",
    "sentence",
    "transformers_clip",
    "words",
]
