"""Checkpoints of a run: periodic, best and final, with the newest sound one found again."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from vidseg.errors import DataError
from vidseg.files import write_atomically

from .files import read_checkpoint, write_checkpoint

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)

FINAL_NAME = "model_final.pth"
_POINTER_NAME = "last_checkpoint"
_PERIODIC = re.compile(r"checkpoint_(\d+)\.pth")


class Checkpointer:
    """Keeps the checkpoints of one run directory.

    ``checkpoint_<iteration>.pth`` files hold everything a run needs to go on, ``last_checkpoint``
    names the newest one, ``model_final.pth`` holds the weights of a finished run.

    Args:
        directory: the run directory; created on the first save.
        num_kept: how many periodic checkpoints stay on disk; 0 or less keeps all.
    """

    def __init__(self, directory: str | Path, *, num_kept: int = 0) -> None:
        self.directory = Path(directory)
        self.num_kept = num_kept

    @property
    def final_path(self) -> Path:
        """Where the weights of the finished run are."""
        return self.directory / FINAL_NAME

    def save_periodic(self, iteration: int, content: dict[str, Any]) -> Path:
        """Saves a checkpoint after ``iteration`` steps and drops those that are too old.

        Raises:
            OSError: if it cannot be written; earlier checkpoints are then untouched.
        """
        path = self.save(f"checkpoint_{iteration:07d}.pth", content)
        name = path.name.encode()
        write_atomically(self.directory / _POINTER_NAME, lambda file: file.write(name))
        self._drop_old(path)
        return path

    def save(self, name: str, content: dict[str, Any]) -> Path:
        """Saves under any name in the run directory.

        Raises:
            OSError: if it cannot be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        write_checkpoint(path, content)
        return path

    def load_newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Loads the newest sound checkpoint; damaged ones are reported and passed over.

        Returns:
            Its path and content, or None if the directory holds no checkpoint.

        Raises:
            DataError: if there are checkpoints but all are damaged.
        """
        candidates = self._candidates()
        faults: list[DataError] = []
        for path in candidates:
            try:
                content = read_checkpoint(path, is_own=True)
                if not isinstance(content, dict) or "iteration" not in content:
                    raise DataError(f"{path} is no checkpoint of a run")
            except DataError as error:
                faults.append(error)
                continue
            for fault in faults:
                logger.warning("%s; going on from %s, the newest sound one", fault, path.name)
            return path, content
        for fault in faults:
            logger.warning("%s", fault)
        if candidates:
            raise DataError(
                f"all {len(candidates)} checkpoints in {self.directory} are damaged; "
                "remove them to start again"
            )
        return None

    def has_checkpoint(self) -> bool:
        """Tells whether a run has left a periodic checkpoint here."""
        return bool(self._candidates())

    def periodic(self) -> list[Path]:
        """Lists the periodic checkpoints, newest first."""
        found = [
            (int(match.group(1)), path)
            for path in self.directory.glob("checkpoint_*.pth")
            if (match := _PERIODIC.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found, reverse=True)]

    def _candidates(self) -> list[Path]:
        paths = self.periodic()
        try:
            named = self.directory / (self.directory / _POINTER_NAME).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return paths
        if named not in paths:
            return paths
        return [named, *(path for path in paths if path != named)]

    def _drop_old(self, newest: Path) -> None:
        if self.num_kept <= 0:
            return
        paths = self.periodic()
        # A run that was set back leaves files of later iterations: they are not its own.
        own = paths[paths.index(newest) :]
        for path in [*paths[: paths.index(newest)], *own[self.num_kept :]]:
            path.unlink(missing_ok=True)
