"""Slots of a video as data: ``masks.npz`` for programs, ``tracks.json`` for everybody.

Both are written frame by frame; memory does not grow with the video.

Shapes: t frames of a step, T frames of the video, K slots, H W pixels.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from vidseg import rle
from vidseg.errors import DataError
from vidseg.files import Draft, ScratchFile

__all__ = ["ArrayFile", "TrackFile", "describe_slots"]

_CHUNK = 1 << 22  # bytes that are moved at once


class TrackFile:
    """Writes ``tracks.json``: what each slot is in every frame.

    ``{"source": ..., "size": [H, W], "num_slots": K, "frames": [{"frame": 0, "time": 0.0, "slots":
    [...]}, ...]}``, see ``describe_slots``; a frame stands on a line of its own.

    Args:
        path: of the file.
        source: name of the video.
        size: (H, W).
        num_slots: K.

    Raises:
        DataError: if the file cannot be written.
    """

    def __init__(self, path: Path, *, source: str, size: tuple[int, int], num_slots: int) -> None:
        self.path, self._num_slots, self._num_frames = path, num_slots, 0
        head = json.dumps({"source": source, "size": list(size), "num_slots": num_slots})
        self._head = f'{head[:-1]}, "frames": ['
        self._draft = Draft(path)
        self._file: IO[str] | None = None

    def __enter__(self) -> TrackFile:
        with _named(self.path):
            self._file = self._draft.path.open("w")
            self._file.write(self._head)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        try:
            if kind is None:
                with _named(self.path), self._file:
                    self._file.write("\n]}\n")
                with _named(self.path):
                    self._draft.publish()
            else:
                with contextlib.suppress(OSError):  # the first error counts
                    self._file.close()
        finally:
            self._draft.discard()

    def write(
        self, image: np.ndarray, segmentation: np.ndarray, *, frame: int, time: float
    ) -> None:
        """Appends a frame.

        Args:
            image: uint8 ``(H, W, 3)``.
            segmentation: slot of every pixel, ``(H, W)``.
            frame: its number in the video.
            time: of it in seconds.
        """
        slots = describe_slots(image, segmentation, self._num_slots)
        record = {"frame": frame, "time": round(time, 6), "slots": slots}
        assert self._file is not None
        with _named(self.path):
            self._file.write(",\n" if self._num_frames else "\n")
            self._file.write(json.dumps(record))
        self._num_frames += 1


def describe_slots(
    image: np.ndarray, segmentation: np.ndarray, num_slots: int
) -> list[dict[str, Any]]:
    """Describes the slots of a frame.

    Args:
        image: uint8 ``(H, W, 3)``.
        segmentation: slot of every pixel, ``(H, W)``.
        num_slots: K.

    Returns:
        Of each slot ``slot``, its number; ``area`` in pixels; ``box`` [x, y, width, height];
        ``centroid`` [x, y], where the centre of the first pixel is [0.5, 0.5]; ``mean_color`` [r,
        g, b], 0 to 255; ``segmentation``, an RLE as in COCO. All but the first two are null where
        a slot has no pixel.
    """
    width = segmentation.shape[1]
    flat = segmentation.ravel()
    areas = np.bincount(flat, minlength=num_slots)
    rows, columns = np.divmod(np.arange(flat.size), width)
    values = [columns + 0.5, rows + 0.5, *image.reshape(-1, 3).T]
    sums = np.stack([np.bincount(flat, value, minlength=num_slots) for value in values])
    means = np.round(sums / np.maximum(areas, 1), 2)
    masks = rle.encode(segmentation[None] == np.arange(num_slots)[:, None, None])
    boxes = rle.boxes(masks).astype(int)
    return [
        {
            "slot": slot,
            "area": int(area),
            "box": boxes[slot].tolist() if area else None,
            "centroid": means[:2, slot].tolist() if area else None,
            "mean_color": means[2:, slot].tolist() if area else None,
            "segmentation": rle.to_text(masks[slot]) if area else None,
        }
        for slot, area in enumerate(areas)
    ]


class ArrayFile:
    """Writes an ``.npz`` file whose arrays grow along their first axis.

    Until the end they lie in temporary files.

    Args:
        path: of the file.

    Raises:
        DataError: if the file cannot be written.
        ResourceError: if there is no room for the temporary files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, _GrowingArray] = {}

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._arrays:
                self._save()
        finally:
            for array in self._arrays.values():
                array.close()

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Appends to each array rows ``(t, ...)``, of the same shape and type every time."""
        for name, rows in arrays.items():
            if name not in self._arrays:
                self._arrays[name] = _GrowingArray(rows.shape[1:], rows.dtype)
            self._arrays[name].append(rows)

    def _save(self) -> None:
        draft = Draft(self.path)
        options: dict[str, Any] = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
        try:
            with _named(self.path):
                with zipfile.ZipFile(draft.path, "w", **options) as archive:
                    for name, array in self._arrays.items():
                        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                            array.copy_to(file)
                draft.publish()
        finally:
            draft.discard()


class _GrowingArray:
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._length = self._size = 0
        self._file = ScratchFile("masks", "take fewer frames (--max-frames, --every)")

    def append(self, rows: np.ndarray) -> None:
        content = rows.tobytes()
        self._file.write(self._size, memoryview(content))
        self._size += len(content)
        self._length += len(rows)

    def close(self) -> None:
        self._file.close()

    def copy_to(self, file: Any) -> None:
        shape = (self._length, *self._shape)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(file, header)
        for place in range(0, self._size, _CHUNK):
            content = bytearray(min(_CHUNK, self._size - place))
            self._file.read_into(place, memoryview(content))
            file.write(content)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says of what the system refuses which file it is about."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
