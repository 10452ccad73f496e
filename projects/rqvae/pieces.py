"""Long documents piece by piece, so that memory does not grow with them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Piece", "cut_into_pieces"]


@dataclass(frozen=True)
class Piece:
    """Frames ``start`` to ``stop - 1``, computed from the frames ``low`` to ``high - 1``."""

    start: int
    stop: int
    low: int
    high: int

    @property
    def kept(self) -> slice:
        """Which of the computed frames the piece consists of."""
        return slice(self.start - self.low, self.stop - self.low)


def cut_into_pieces(num_frames: int, max_frames: int, overlap: int, stride: int) -> list[Piece]:
    """Cuts a document at multiples of the stride.

    Args:
        num_frames: of the document.
        max_frames: that are computed at once.
        overlap: frames that a piece needs to see to each side.
        stride: of the windows.

    Returns:
        One piece if the document is no longer than ``max_frames``.

    Raises:
        ValueError: if ``max_frames`` is too short for a stride with its overlap.
    """
    if num_frames <= max_frames:
        return [Piece(0, num_frames, 0, num_frames)]
    size = (max_frames - 2 * overlap) // stride * stride
    if size < stride:
        raise ValueError(
            f"{num_frames} frames are processed in pieces of max_seq_len {max_frames}, but a piece "
            f"needs {2 * overlap + stride}: {overlap} to each side and a stride of {stride}; raise "
            "max_seq_len (config: MODEL.RQVAE.MAX_SEQ_LEN)"
        )
    return [
        Piece(start, stop, max(start - overlap, 0), min(stop + overlap, num_frames))
        for start in range(0, num_frames, size)
        for stop in [min(start + size, num_frames)]
    ]
