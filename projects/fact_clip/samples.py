"""Videos as they come in: features and labels of a sample, checked.

Shapes: T frames, D input width, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from vidseg.errors import DataError

__all__ = ["IGNORED", "Sample", "naming_video", "read_features", "read_labels"]

Sample = dict[str, Any]

IGNORED = -100
"""Label of a frame that no loss and no metric sees."""


@contextlib.contextmanager
def naming_video(sample: Sample) -> Iterator[None]:
    """Turns what is said of an unsuitable video into a ``DataError`` that names it."""
    try:
        yield
    except ValueError as error:
        file = (sample.get("file_names") or [""])[0]
        name = f"video {sample.get('video_id', '?')}" + (f" ({file})" if file else "")
        raise DataError(f"{name}: {error}") from error


def read_features(sample: Sample, width: int) -> Tensor:
    """Takes the features ``(T, D)`` out of a sample.

    Raises:
        ValueError: if they have another shape, there are no frames, or a number is not finite.
    """
    features: Tensor = sample["features"]
    if features.dim() != 2:
        raise ValueError(f"features are (frames, {width}), got {tuple(features.shape)}")
    if features.shape[1] != width:
        way_out = "transpose them" if len(features) == width else "config: FACT.input_dim"
        raise ValueError(
            f"the features are {tuple(features.shape)}, frames first, but the model was built for "
            f"{width} per frame ({way_out})"
        )
    if not len(features):
        raise ValueError("there are no frames")
    # A finite sum has finite summands alone, and takes no memory; large ones may overflow it.
    if not features.sum().isfinite():
        bad = (~features.isfinite().all(1)).nonzero()
        if len(bad):
            raise ValueError(f"the features of frame {int(bad[0])} hold NaN or infinity")
    return features


def read_labels(sample: Sample, num_frames: int, num_classes: int) -> Tensor | None:
    """Takes the labels ``(T,)`` int64 out of a sample; None if it has none.

    Args:
        sample: with ``labels`` ``(T,)``, negative where a frame has none, and perhaps ``mask``
            ``(T,)``, False where a frame is missing.
        num_frames: T.
        num_classes: C.

    Returns:
        ``IGNORED`` where a frame has no label or is missing.

    Raises:
        ValueError: if there is not one label per frame, or one is no class of the model.
    """
    labels: Tensor | None = sample.get("labels")
    if labels is None:
        return None
    if labels.shape != (num_frames,):
        raise ValueError(f"{num_frames} frames have labels of the shape {tuple(labels.shape)}")
    if labels.max() >= num_classes:
        frame = int((labels >= num_classes).nonzero()[0])
        raise ValueError(
            f"frame {frame} has the label {int(labels[frame])}, the model has {num_classes} "
            "classes (config: FACT.n_classes)"
        )
    ignored = labels < 0
    if "mask" in sample:
        ignored |= ~sample["mask"]
    return labels.long().masked_fill(ignored, IGNORED)
