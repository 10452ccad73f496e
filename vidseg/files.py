"""Reading json and writing files so that nobody ever finds half of one."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

from vidseg.errors import DataError, ResourceError, UserError

__all__ = [
    "Draft",
    "ScratchFile",
    "draft_suffix",
    "make_folder",
    "read_json",
    "remove_stale_drafts",
    "write_atomically",
    "write_folder",
]

_DRAFT = re.compile(r"\..+\.(\d+)\.tmp")


class Draft:
    """A file in the making, which appears under its name whole or not at all.

    Args:
        final: its name; an existing file is replaced.

    Attributes:
        path: where to write it until then, in the same folder.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        # Hidden, and another one for each process: several may write the same file.
        self.path = final.with_name(f".{final.name}{draft_suffix()}")

    def publish(self, *, durable: bool = True) -> None:
        """Gives the written file its name.

        Args:
            durable: whether to wait for the disk, so that a power cut leaves it whole as well.

        Raises:
            OSError: if the disk is full or not writable; the old file is then untouched.
        """
        if durable:
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(self.path, self.final)
        if durable:
            _sync_directory(self.final.parent)

    def discard(self) -> None:
        """Removes what was written, if anything."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class ScratchFile:
    """Memory on disk: a file without a name, of which nothing is left when the process ends.

    It is made when it is first written, in the folder that TMPDIR names.

    Args:
        what: that it holds, for the message about a full disk.
        way_out: what one may do then besides choosing another disk.
    """

    def __init__(self, what: str, way_out: str) -> None:
        self._what = what
        self._way_out = way_out
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, place: int, data: memoryview) -> None:
        """Writes bytes.

        Raises:
            ResourceError: if the disk is full or not writable.
        """
        self._size = max(self._size, place + len(data))
        try:
            if self._file is None:
                # No buffer of its own, and no map: both would count as memory of the process.
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self._file.seek(place)
            while data:  # without a buffer, a part may have been written
                data = data[self._file.write(data) :]
        except OSError as error:
            raise ResourceError(
                f"cannot keep {self._what} in a temporary file in {_temporary_folder()}"
                f" ({error.strerror or error}): {self._size / 2**20:.0f} MiB are needed so far;"
                f" point TMPDIR to a larger disk, or {self._way_out}"
            ) from None

    def read_into(self, place: int, data: memoryview) -> None:
        """Fills ``data`` with what was written there.

        Raises:
            ResourceError: if the disk does not give it back.
        """
        assert self._file is not None, "nothing was written"
        self._file.seek(place)
        while data:
            count = self._file.readinto(data)  # type: ignore[attr-defined]
            if not count:
                raise ResourceError(f"the temporary file with {self._what} was cut off")
            data = data[count:]

    def close(self) -> None:
        """Gives up what was written; without it, that happens with the end of the object."""
        if self._file is not None:
            self._file.close()
            self._file = None


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], *, durable: bool = True
) -> None:
    """Writes a file that either appears whole or not at all, whatever kills the process.

    Args:
        path: final name; an existing file is replaced.
        write: puts the content into the open file it is given.
        durable: whether a power cut must not damage it either. Not waiting for the disk is many
            times as fast for small files, and enough where damage shows and can be repaired.

    Raises:
        OSError: if the disk is full or not writable; the old file is then untouched.
    """
    draft = Draft(path)
    try:
        with open(draft.path, "wb") as file:
            write(file)
        draft.publish(durable=durable)
    except BaseException as error:
        draft.discard()
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # no write names its file, and nobody knows the draft
        raise


def write_folder(folder: Path, write: Callable[[Path], object]) -> bool:
    """Makes a folder with all its files that either appears whole or not at all.

    An interrupted or a second, simultaneous run does no harm; what killed runs left of the same
    folder is removed.

    Args:
        folder: final name; what is in it already stays, and nothing is written then.
        write: fills the folder that it is given.

    Returns:
        Whether it was written.

    Raises:
        OSError: if the disk is full or not writable.
    """
    if _is_taken(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not all below: what lies beside the folder may be a whole home directory.
    _remove_stale(folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"))
    draft = Path(tempfile.mkdtemp(draft_suffix(), f".{folder.name}.", folder.parent))
    try:
        write(draft)
        draft.chmod(0o755)
        try:
            with contextlib.suppress(OSError):
                folder.rmdir()  # not every system renames to the name of an empty folder
            draft.rename(folder)
        except OSError:
            if not _is_taken(folder):  # else another run was quicker
                raise
            return False
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _is_taken(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def draft_suffix() -> str:
    """Gives the end of the names of this process's drafts, which begin with a dot."""
    return f".{os.getpid()}.tmp"


def remove_stale_drafts(folder: Path) -> list[Path]:
    """Removes files and folders that killed processes left half made in a folder and below.

    Drafts of processes that are alive stay.

    Args:
        folder: to look through; may be absent.

    Returns:
        What was removed.
    """
    return _remove_stale(folder.rglob(".*.tmp"))


def _remove_stale(candidates: Iterable[Path]) -> list[Path]:
    removed = []
    for path in sorted(candidates):
        match = _DRAFT.fullmatch(path.name)
        if match and not _is_alive(int(match.group(1))):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path)
    return removed


def _is_alive(pid: int) -> bool:
    """Tells whether this machine runs a process of that number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def make_folder(path: Path, what: str) -> None:
    """Makes a folder for results before the time for them is spent, if it is not there.

    Args:
        path: the folder.
        what: how a message calls it.

    Raises:
        UserError: if that is not possible, e.g. because a file has the name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{what} {path} cannot be made ({error.strerror}); choose another folder"
        ) from error


def read_json(path: Path, *, what: str = "file") -> Any:
    """Reads a json file.

    Args:
        path: the file.
        what: kind of file, for messages.

    Raises:
        DataError: if it is missing, unreadable or no json (with the line).
    """
    try:
        with path.open("rb") as file:
            return json.load(file)
    except FileNotFoundError:
        raise DataError(f"{what} {path} does not exist") from None
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path} is not valid json: {error.msg} in {where}") from None
    except RecursionError:
        raise DataError(f"{path} is not valid json: it is nested too deeply") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not valid json: it is not text") from None
    except ValueError as error:  # such as a number of thousands of digits
        raise DataError(f"{path} is not valid json: {error}") from None


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # none is writable
        return "TMPDIR"


def _sync_directory(directory: Path) -> None:
    # Without it a rename may be lost in a power cut; not every file system offers it.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
