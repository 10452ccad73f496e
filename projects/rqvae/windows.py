"""Where the sliding windows of a document lie; everything that counts windows asks here.

Window n covers the frames ``first_start + n * stride`` and the ``window - 1`` after it. Shapes: B
documents, T frames, N windows, W frames in a window. Masks are bool, True = valid frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vidseg.errors import nearest

if TYPE_CHECKING:
    from torch import Tensor

    Count = TypeVar("Count", int, Tensor)

__all__ = [
    "MODES",
    "check_windows",
    "cut_frames",
    "first_start",
    "num_windows",
    "window_centres",
    "window_validity",
]

MODES = ("same", "tail", "drop")
"""``same``: centred windows, one per stride. ``tail``: from the first frame, as few as cover all,
the last one padded. ``drop``: whole windows only, as a plain loop makes them; loses the tail."""


def check_windows(
    window: int, stride: int, mode: str = "same", *, allow_gaps: bool = False
) -> None:
    """Checks settings that hold for every document.

    Args:
        window: frames in a window, W.
        stride: frames from one window to the next, S.
        mode: one of :data:`MODES`.
        allow_gaps: whether S may exceed W, which leaves frames between the windows unseen.

    Raises:
        ValueError: if W or S is below 1, S above W without ``allow_gaps``, or the mode unknown.
    """
    if window < 1 or stride < 1:
        raise ValueError(
            f"window and stride must be 1 frame or more, got window {window} and stride {stride}"
        )
    if stride > window and not allow_gaps:
        raise ValueError(
            f"stride {stride} is larger than window {window}, so frames between the windows would "
            "be lost; lower the stride or allow gaps"
        )
    if mode not in MODES:
        near = ", ".join(nearest(mode, MODES) or MODES)
        raise ValueError(f"there is no window mode {mode!r}; nearest: {near}")


def num_windows(
    num_frames: int, window: int, stride: int, mode: str = "same", *, allow_gaps: bool = False
) -> int:
    """Counts the windows of a document.

    Args:
        num_frames: T, at least 1.
        window: see :func:`check_windows`, as all that follow.
        stride: see there.
        mode: see there.
        allow_gaps: see there.

    Returns:
        N, at least 1.

    Raises:
        ValueError: for wrong settings, without frames, or if ``drop`` leaves no window.
    """
    check_windows(window, stride, mode, allow_gaps=allow_gaps)
    if num_frames < 1:
        raise ValueError(f"a document needs 1 frame or more to have windows, got {num_frames}")
    num = _count(num_frames, window, stride, mode)
    if num < 1:
        raise ValueError(
            f"mode 'drop' makes no window of {window} frames from {num_frames}; use mode 'same' or "
            "'tail', or a smaller window"
        )
    return num


def first_start(window: int, stride: int, mode: str = "same") -> int:
    """Gives the frame where the first window begins; negative if it begins before the document."""
    return -((window - stride) // 2) if mode == "same" else 0


def window_centres(num: int, window: int, stride: int, mode: str = "same") -> Tensor:
    """Gives the middles of the first ``num`` windows in frames, float32 ``(num,)``.

    A frame's own middle is its number, so windows of even length have half frames.
    """
    import torch

    return torch.arange(num) * float(stride) + (
        first_start(window, stride, mode) + (window - 1) / 2
    )


def window_validity(
    mask: Tensor,
    window: int,
    stride: int,
    mode: str = "same",
    min_valid: int = 1,
    *,
    allow_gaps: bool = False,
) -> tuple[Tensor, Tensor]:
    """Tells which frames of which windows are valid, and which windows.

    A document that is padded has the windows that it would have alone: those of its frames up to
    the last valid one.

    Args:
        mask: bool ``(B, T)``, True = valid frame.
        window: see :func:`check_windows`.
        stride: see there.
        mode: see there.
        min_valid: valid frames that a valid window has at least.
        allow_gaps: see there.

    Returns:
        bool ``(B, N, W)``, a view, and bool ``(B, N)``, with the N of T frames.

    Raises:
        ValueError: as :func:`num_windows` does.
    """
    import torch

    num_frames = mask.shape[1]
    num = num_windows(num_frames, window, stride, mode, allow_gaps=allow_gaps)
    start = first_start(window, stride, mode)
    valid = cut_frames(mask, start, start + (num - 1) * stride + window).unfold(1, window, stride)
    frames = torch.arange(1, num_frames + 1, device=mask.device)
    lengths = (frames * mask).amax(1, keepdim=True)  # (B, 1)
    own = torch.arange(num, device=mask.device) < _count(lengths, window, stride, mode)
    return valid, own & (valid.sum(-1) >= max(min_valid, 1))


def cut_frames(x: Tensor, start: int, stop: int) -> Tensor:
    """Gives the frames ``start`` to ``stop - 1`` of ``(B, T, ...)``; zeros where there are none."""
    from torch.nn import functional as F

    num_frames = x.shape[1]
    low, high = (min(max(frame, 0), num_frames) for frame in (start, stop))
    before = min(max(-start, 0), stop - start)
    after = stop - start - before - (high - low)
    inside = x[:, low:high]
    if before == after == 0:
        return inside
    return F.pad(inside, [0, 0] * (x.dim() - 2) + [before, after])


def _count(num_frames: Count, window: int, stride: int, mode: str) -> Count:
    if mode == "same":
        return -(-num_frames // stride)
    if mode == "tail":
        more = -((window - num_frames) // stride)
        return (num_frames > 0) * (1 + more * (more > 0))
    num = (num_frames - window) // stride + 1
    return num * (num > 0)
