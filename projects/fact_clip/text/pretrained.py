"""What encoders with trained weights share: their libraries, failures and traces in the cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.errors import DataError, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["BATCH_SIZE", "encode_batches", "file_identity", "import_library", "loading", "version"]

BATCH_SIZE = 64
"""Texts at a time."""

_WAY_OUT = (
    "give local files by CLIP.text_file, or embeddings made on another machine by "
    "CLIP.text_provider file"
)


def import_library(module: str, provider: str) -> Any:
    """Imports the library of a provider.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"CLIP.text_provider {provider} needs {module} ({error}); run `pip install "
            "vidseg[clip]`, or use CLIP.text_provider file or words"
        ) from error


@contextmanager
def loading(source: str, what: str) -> Iterator[None]:
    """Turns whatever a library raises over missing or damaged weights into one sentence.

    The generator of random numbers is left as it was: a model whose text embeddings were kept must
    start with the same weights as one whose text was encoded.

    Args:
        source: file, folder or name of the weights.
        what: they should hold.

    Raises:
        DataError: in the place of any other error than ours.
    """
    import torch

    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except UserError:
        raise
    except Exception as error:  # a library of many formats can raise nearly anything
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"{source}: {what} cannot be loaded ({reason.rstrip('.')}); {_WAY_OUT}"
        ) from error


def encode_batches(texts: Sequence[str], encode: Callable[[list[str]], Tensor]) -> NDArray[Any]:
    """Encodes texts some at a time, without gradients.

    Args:
        texts: any number of at least one.
        encode: gives float ``(N, E)`` for N texts.

    Returns:
        float32 ``(len(texts), E)``.
    """
    import torch

    with torch.inference_mode():
        parts = [
            encode(list(texts[start : start + BATCH_SIZE])).float()
            for start in range(0, len(texts), BATCH_SIZE)
        ]
    encoded: NDArray[Any] = torch.cat(parts).cpu().numpy()
    return encoded


def file_identity(path: Path) -> list[Any]:
    """Gives plain json that changes when a file, or a file of a folder, does."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat()) for file in files if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def version(distribution: str) -> str:
    """Gives the version of a library without importing it, ``""`` if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
