"""The windows that a model lays over documents: how many, where, and which belong to a piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .pieces import Piece
from .windows import check_windows, first_start, num_windows, window_centres

__all__ = ["WindowGrid"]


@dataclass(frozen=True)
class WindowGrid:
    """Sliding windows, or a single one over the whole document.

    Args:
        size: W, frames of a window.
        stride: S, frames from one window to the next.
        mode: see ``windows.MODES``.
        allow_gaps: whether S may exceed W.
        is_global: whether there is but one window, as long as the document.

    Raises:
        ValueError: if these contradict each other.
    """

    size: int
    stride: int
    mode: str = "same"
    allow_gaps: bool = False
    is_global: bool = False

    def __post_init__(self) -> None:
        check_windows(self.size, self.stride, self.mode, allow_gaps=self.allow_gaps)

    def count(self, num_frames: int) -> int:
        """Gives the number of windows of a document.

        Raises:
            ValueError: if it has no frames, or fewer than a window in mode ``drop``.
        """
        if self.is_global and num_frames > 0:
            return 1
        return num_windows(
            num_frames, self.size, self.stride, self.mode, allow_gaps=self.allow_gaps
        )

    def centres(self, num: int, num_frames: int, lengths: Tensor | None = None) -> Tensor:
        """Gives the middles of the windows in frames.

        Args:
            num: N.
            num_frames: T.
            lengths: ``(B,)`` of the documents of a padded batch; None if all have T frames.

        Returns:
            ``(N,)``, or ``(B, N)`` where they differ between documents.
        """
        if not self.is_global:
            return window_centres(num, self.size, self.stride, self.mode)
        ends = torch.tensor([num_frames]) if lengths is None else lengths[:, None]
        return (ends.float() - 1) / 2

    def around(self, piece: Piece, num_frames: int, num: int) -> slice:
        """Gives the windows that share a frame with a piece, or all where it is the only one.

        Args:
            piece: of the document.
            num_frames: T.
            num: N.
        """
        if self.is_global or piece.stop - piece.start == num_frames:
            return slice(0, num)
        first = first_start(self.size, self.stride, self.mode)
        start = (piece.low - first - self.size) // self.stride + 1
        stop = (piece.high - 1 - first) // self.stride + 1
        return slice(min(max(start, 0), num - 1), max(min(stop, num), 1))
