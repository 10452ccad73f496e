"""Writing and reading checkpoint files: never half written, never executing what they hold."""

from __future__ import annotations

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vidseg.errors import DataError, nearest
from vidseg.files import write_atomically

from .pickles import load_with_stand_ins

__all__ = ["read_checkpoint", "require_file", "write_checkpoint"]

logger = logging.getLogger(__name__)

_SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors", ".bin")


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Saves tensors and plain containers atomically.

    Raises:
        OSError: if the file cannot be written.
    """

    def save(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # The end of torch's writer hides what a full disk told it.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise OSError(f"{path}: {str(error).splitlines()[0]}") from error

    write_atomically(path, save)


def require_file(path: Path) -> None:
    """Checks that weights can be there.

    Raises:
        DataError: if there is nothing of that name, or a folder.
    """
    if path.is_dir():
        raise DataError(f"weights {path} is a folder; give the path of a file in it")
    if not path.is_file():
        siblings = path.parent.glob("*") if path.parent.is_dir() else ()
        names = [file.name for file in siblings if file.suffix in _SUFFIXES]
        close = ", ".join(str(path.parent / name) for name in nearest(path.name, names))
        way_out = f"nearest: {close}" if close else "give the path of one that does"
        raise DataError(f"weights file {path} does not exist; {way_out}")


def read_checkpoint(path: Path, *, is_own: bool = False) -> Any:
    """Reads a ``.pth``/``.pt`` file of tensors and plain containers onto the CPU.

    Args:
        path: of the file.
        is_own: whether a run of ours wrote it. Its checksums are then right or it is damaged;
            others may have switched them off in torch, so that only a warning is due.

    Raises:
        DataError: if the file is missing, damaged, or holds objects that would run code.
    """
    require_file(path)
    try:
        part = _wrong_checksum(path)
        if part and is_own:
            raise DataError(f"{path} is damaged: the checksum of {part} is wrong")
        if part:
            logger.warning("%s may be damaged: the checksum of %s is wrong", path, part)
        return _load(path)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        text = str(error)
        # An unknown operand is what stands in a file that is no pickle at all.
        named = "Unsupported" in text or "GLOBAL" in text
        if named and "Unsupported operand" not in text:
            raise DataError(
                f"{path} holds Python objects besides tensors, which are not loaded because they "
                "can run code; re-save it as a state dict"
            ) from error
        raise DataError(f"{path} is damaged or no checkpoint") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise DataError(f"{path} is damaged or no checkpoint{_reason(error)}") from error


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Runs of detectron2 and its forks leave such beside their weights.
        is_known = "numpy" in str(error) or "CfgNode" in str(error)
        if not is_known or torch.__version__ < "2.6":  # stand-ins have no names before
            raise
        return load_with_stand_ins(path)


def _wrong_checksum(path: Path) -> str | None:
    """Names a part of a file whose content differs from what was written; torch does not look."""
    if not zipfile.is_zipfile(path):  # written before torch 1.6
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _reason(error: BaseException) -> str:
    """Gives the reason in parentheses, if it was written for people."""
    # Others, such as KeyError or IndexError, come from a parser that has lost its way.
    if not isinstance(error, OSError | EOFError | RuntimeError) or not str(error):
        return ""
    return f" ({str(error).splitlines()[0][:120]})"
