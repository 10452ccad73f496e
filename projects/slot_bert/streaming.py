"""What a video leaves behind for its next frames.

Shapes: K slots, D slot width, t frames, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vidseg.errors import DataError

from .linking import LinkState

__all__ = ["StreamState"]


@dataclass(frozen=True)
class StreamState:
    """What the model keeps of a video; its size does not grow.

    Attributes:
        num_frames: seen so far.
        last_frame: ``(1, 3, H, W)`` in [0, 1].
        slots: of the last frame, as slot attention left them, ``(1, K, D)``.
        context: slots of the frames that the temporal transformer still looks at, ``(1, t, K, D)``.
        link: for the order of the slots.
    """

    num_frames: int
    last_frame: Tensor
    slots: Tensor
    context: Tensor
    link: LinkState | None

    def check_size(self, video: Tensor) -> None:
        """Checks that frames ``(..., H, W)`` are as large as those before.

        Raises:
            DataError: if not.
        """
        before, now = self.last_frame.shape[-2:], video.shape[-2:]
        if before != now:
            raise DataError(
                f"frames of {now[1]}x{now[0]} come after frames of {before[1]}x{before[0]} pixels "
                "in one video"
            )
