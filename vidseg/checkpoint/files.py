"""Writing and reading checkpoint files: never half written, never executing what they hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vidseg.errors import DataError
from vidseg.files import write_atomically

__all__ = ["read_checkpoint", "require_file", "write_checkpoint"]


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Saves tensors and plain containers atomically.

    Raises:
        OSError: if the file cannot be written.
    """

    def save(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch hides the ENOSPC of its writer in a RuntimeError
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
        raise DataError(f"weights file {path} does not exist")


def read_checkpoint(path: Path) -> Any:
    """Reads a ``.pth``/``.pt`` file of tensors and plain containers onto the CPU.

    Raises:
        DataError: if the file is missing, damaged, or holds objects that would run code.
    """
    require_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
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


def _reason(error: BaseException) -> str:
    """Gives the reason in parentheses, if it was written for people."""
    # Others, such as KeyError or IndexError, come from a parser that has lost its way.
    if not isinstance(error, OSError | EOFError | RuntimeError) or not str(error):
        return ""
    return f" ({str(error).splitlines()[0][:120]})"
