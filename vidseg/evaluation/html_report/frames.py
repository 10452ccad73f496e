"""Pictures of frames, small and within the page."""

from __future__ import annotations

import base64
import io
import logging
import os
from pathlib import Path

__all__ = ["FrameReader"]

logger = logging.getLogger(__name__)

QUALITY = 70  # of the JPEG


class FrameReader:
    """Reads frames below a folder; of those that it cannot read, it names the first.

    Args:
        root: the folder; without it there are no pictures.
    """

    def __init__(self, root: str | os.PathLike[str] | None) -> None:
        self._root = Path(root) if root else None
        self._lost: list[str] = []

    def read(self, name: str | None, width: int, height: int) -> str | None:
        """Gives a frame as the address of a JPEG of some size, ``None`` if there is none.

        Args:
            name: path below the folder, or the path without its end, such as ``.jpg``.
            width: pixels.
            height: pixels.
        """
        if self._root is None or name is None:
            return None
        from PIL import Image  # on demand: a report without pictures needs none

        path = self._find(self._root / name)
        try:
            return _shrink(path, width, height)
        # Pillow's ways of finding damage; a report is worth having without the picture
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            is_missing = isinstance(error, FileNotFoundError)
            self._lost.append(f"{path} {'does not exist' if is_missing else 'cannot be read'}")
            return None

    def finish(self) -> list[str]:
        """Warns once of the frames that could not be read, and gives the notes for the page."""
        if not self._lost:
            return []
        count = len(self._lost)
        are = "frame is shown without its picture" if count == 1 else "frames are shown without one"
        note = f"{count} {are}: {self._lost[0]}"
        logger.warning("%s; frame names are relative to the folder of images", note)
        return [note]

    @staticmethod
    def _find(path: Path) -> Path:
        if path.suffix.lower() in _ENDS or path.is_file():
            return path
        ends = [path.with_name(path.name + end) for end in _ENDS]
        return next((one for one in ends if one.is_file()), ends[0])


_ENDS = (".jpg", ".png", ".jpeg")


def _shrink(path: Path, width: int, height: int) -> str:
    from PIL import Image  # on demand, as above

    with Image.open(path) as picture:
        picture.draft("RGB", (width, height))  # a JPEG is read at a fraction of its size
        small = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
