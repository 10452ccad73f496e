"""Tensors of a video's frames, up to a bound in memory and the rest in a temporary file.

What comes out is what went in, to the bit. The file has no name: nothing of it is left behind,
whatever ends the process.

Shapes: N instances, T frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.files import ScratchFile

__all__ = ["FrameStore", "KeepingSpace", "SequenceBuffer"]


class KeepingSpace:
    """The memory that the stores of one video share, and the file that takes what is beyond it.

    Args:
        memory_mb: bound in MiB; 0 puts everything into the file.
        key: config key of the bound, for the message about a full disk.
    """

    def __init__(self, memory_mb: float, key: str) -> None:
        self._free = int(memory_mb * 2**20)
        way_out = f"keep more of them in memory with a larger {key}"
        self._file = ScratchFile("the frames of this video", way_out)
        self._end = 0

    @property
    def file_bytes(self) -> int:
        """How much lies in the file."""
        return self._end

    def take(self, size: int) -> bool:
        """Reserves memory; gives False, and reserves nothing, if there is not enough."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        """Ends a reservation."""
        self._free += size

    def allocate(self, size: int) -> int:
        """Gives the place of ``size`` new bytes in the file."""
        place = self._end
        self._end += size
        return place

    def write(self, place: int, values: Tensor) -> None:
        """Writes a tensor to the file.

        Raises:
            ResourceError: if the disk is full or not writable.
        """
        self._file.write(place, _bytes_of(values.detach().cpu().contiguous()))

    def read_into(self, place: int, values: Tensor) -> None:
        """Fills a contiguous tensor of the host from the file."""
        self._file.read_into(place, _bytes_of(values))


@dataclass(frozen=True, slots=True)
class _Spilled:
    """A tensor in the file."""

    place: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class FrameStore:
    """One tensor per frame, of any shape; they are appended in order and may be dropped.

    Args:
        space: shared with other stores of the video.

    Note:
        In memory a tensor stays on its device; from the file it returns to it.
    """

    def __init__(self, space: KeepingSpace) -> None:
        self._space = space
        self._kept: dict[int, Tensor | _Spilled] = {}
        self._count = 0

    def __len__(self) -> int:
        """Number of frames appended so far, dropped ones included."""
        return self._count

    def append(self, values: Tensor) -> None:
        """Keeps the tensor of the next frame.

        Raises:
            ResourceError: if the disk is full or not writable.
        """
        size = values.numel() * values.element_size()
        if self._space.take(size):
            # A copy: a slice of a window would keep the whole window alive.
            kept: Tensor | _Spilled = values.detach().clone(memory_format=torch.contiguous_format)
        else:
            kept = _Spilled(self._space.allocate(size), values.shape, values.dtype, values.device)
            self._space.write(kept.place, values)
        self._kept[self._count] = kept
        self._count += 1

    def __getitem__(self, frame: int) -> Tensor:
        """Gives the tensor of a frame, to be read only."""
        kept = self._kept[frame]
        if isinstance(kept, Tensor):
            return kept
        values = torch.empty(kept.shape, dtype=kept.dtype)
        self._space.read_into(kept.place, values)
        return values.to(kept.device)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[frame] for frame in list(self._kept))

    def stacked(self, frames: range) -> Tensor:
        """Gives the tensors of some frames, which have one shape, as ``(frames, ...)``."""
        return torch.stack([self[frame] for frame in frames])

    def drop(self, frame: int) -> None:
        """Forgets a frame; memory is free for others then, room in the file is not."""
        kept = self._kept.pop(frame)
        if isinstance(kept, Tensor):
            self._space.give_back(kept.numel() * kept.element_size())


class SequenceBuffer:
    """Sequences ``(N, T, C)`` that are read and written a few instances or frames at a time.

    Args:
        shape: (N, T, C).
        dtype: of the values.
        device: where they are computed.
        space: that it takes its memory from; it lies in the file if there is not enough.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        space: KeepingSpace,
    ) -> None:
        self.shape = shape
        self._dtype, self._device, self._space = dtype, device, space
        self._step = shape[2] * dtype.itemsize  # bytes of one instance in one frame
        self._tensor: Tensor | None = None
        self._place = 0
        size = math.prod(shape) * dtype.itemsize
        if space.take(size):
            self._tensor = torch.empty(shape, dtype=dtype, device=device)
        else:
            self._place = space.allocate(size)

    def instances(self, start: int, stop: int) -> Tensor:
        """Gives instances over all frames, ``(n, T, C)``; changing them needs a write, too."""
        if self._tensor is not None:
            return self._tensor[start:stop]
        part = torch.empty(self.shape[1], stop - start, self.shape[2], dtype=self._dtype)
        for frame in range(self.shape[1]):
            self._space.read_into(self._at(frame, start), part[frame])
        return part.to(self._device).transpose(0, 1).contiguous()

    def write_instances(self, start: int, values: Tensor) -> None:
        """Writes instances over all frames, ``(n, T, C)``, from row ``start`` on."""
        if self._tensor is not None:
            self._tensor[start : start + len(values)] = values
            return
        part = values.to(self._dtype).transpose(0, 1).contiguous().cpu()
        for frame, rows in enumerate(part):
            self._space.write(self._at(frame, start), rows)

    def frames(self, start: int, stop: int) -> Tensor:
        """Gives all instances in some frames, frames first: ``(t, N, C)``."""
        if self._tensor is not None:
            return self._tensor[:, start:stop].transpose(0, 1)
        part = torch.empty(stop - start, self.shape[0], self.shape[2], dtype=self._dtype)
        self._space.read_into(self._at(start, 0), part)
        return part.to(self._device)

    def write_frames(self, start: int, values: Tensor) -> None:
        """Writes all instances in some frames, ``(t, N, C)``, from frame ``start`` on."""
        if self._tensor is not None:
            self._tensor[:, start : start + len(values)] = values.transpose(0, 1)
            return
        self._space.write(self._at(start, 0), values.to(self._dtype))

    def release(self) -> None:
        """Ends the use of the buffer; memory is free for others then, room in the file is not."""
        if self._tensor is not None:
            self._space.give_back(self._tensor.numel() * self._tensor.element_size())
            self._tensor = None

    def _at(self, frame: int, row: int) -> int:
        # Frames first, as they are written; an instance is then one short read per frame.
        return self._place + (frame * self.shape[0] + row) * self._step


def _bytes_of(values: Tensor) -> memoryview:
    """Views a tensor of the host as bytes, since NumPy does not know every dtype."""
    return memoryview(values.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
