"""What was predicted for each video, on disk, so that a stopped evaluation can go on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from vidseg.errors import DataError, ResourceError
from vidseg.files import read_json, write_atomically

__all__ = ["ResultStore"]

_FINGERPRINT = "fingerprint.json"


class ResultStore(MutableMapping[Any, Any]):
    """Json results by video id, each in a file of its own; nothing is kept in memory but the ids.

    A file is there whole or not at all, whatever kills the process; what a power cut damages is
    named when it is read, and predicted again once it is removed. A file belongs to no rank: any
    number of ranks may write into one folder, as each video has one writer.

    Args:
        directory: of the files; made when the store is opened.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._paths: dict[Any, Path] = {}

    def open(self, fingerprint: Mapping[str, Any]) -> tuple[int, list[str]]:
        """Takes over what is there, if it was made under the same conditions, else removes it.

        Args:
            fingerprint: everything that the results depend on, as json, by a name for messages.

        Returns:
            How many results were removed, and the names of what had changed.

        Raises:
            ResourceError: if the folder cannot be written to.
        """
        wanted = json.loads(json.dumps(fingerprint))
        self._paths = self._find()
        found = self._read_fingerprint()
        if found == wanted:
            return 0, []
        num_removed = len(self._paths)
        self.clear()
        self._write(self.directory / _FINGERPRINT, wanted)
        names = [*wanted, *(name for name in found if name not in wanted)]
        return num_removed, [name for name in names if found.get(name) != wanted.get(name)]

    def look_again(self) -> None:
        """Takes over what other ranks have written here since the store was opened."""
        self._paths.update(self._find())

    def clear(self) -> None:
        """Removes the whole folder, as far as it is this store's."""
        self._paths = {}
        with contextlib.suppress(FileNotFoundError):  # another rank was here first
            # The fingerprint first: without it no half-removed store is ever taken over.
            drafts = self.directory.glob(".*.tmp")
            for path in [self.directory / _FINGERPRINT, *self._find().values(), *drafts]:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # likewise, or a stranger's file is there
            self.directory.rmdir()

    def __getitem__(self, video_id: Any) -> Any:
        """Reads a result.

        Raises:
            KeyError: if there is none.
            DataError: if the file was damaged since.
        """
        path = self._paths[video_id]
        try:
            return read_json(path, what="result of a video")
        except DataError as error:
            raise DataError(
                f"{error}; remove it, and the same command predicts that video again"
            ) from error

    def __setitem__(self, video_id: Any, result: Any) -> None:
        """Writes a result.

        Raises:
            ResourceError: if the disk is full or not writable.
        """
        path = self.directory / f"{quote(json.dumps(video_id), safe='')}.json"
        # A short clip takes the model no longer than waiting for the disk would take.
        self._write(path, result, durable=False)
        self._paths[video_id] = path

    def __delitem__(self, video_id: Any) -> None:
        self._paths.pop(video_id).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._paths

    def _find(self) -> dict[Any, Path]:
        """Gives the files by id; the name is the id as json, so 1 and "1" are two."""
        found: dict[Any, Path] = {}
        for path in sorted(self.directory.glob("[!.]*.json")):
            try:
                found[json.loads(unquote(path.stem))] = path
            except (ValueError, TypeError):  # no file of ours
                continue
        return found

    def _read_fingerprint(self) -> dict[str, Any]:
        try:
            found = read_json(self.directory / _FINGERPRINT)
        except DataError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, path: Path, content: Any, *, durable: bool = True) -> None:
        text = json.dumps(content, separators=(",", ":")).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: file.write(text), durable=durable)
        except OSError as error:
            raise ResourceError(
                f"cannot write {path}: {error.strerror or error}; make room or choose another "
                "OUTPUT_DIR; the same command goes on with the videos that are not finished"
            ) from error
