"""Ground truth of a clip as the training of the tracker reads it.

Shapes: N objects, T frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidseg.structures import ClipInstances

__all__ = ["ClipTargets", "FrameTarget", "clip_targets", "tall_target"]


@dataclass
class FrameTarget:
    """Objects of one prediction; ``masks`` (N, T, H, W) and ``labels`` (N,) as a matcher reads."""

    masks: Tensor
    labels: Tensor


@dataclass
class ClipTargets:
    """Objects that are visible somewhere in a clip.

    Attributes:
        masks: float32 ``(N, T, H, W)``, padded to the size of the network's input.
        labels: int64 ``(N,)``.
        visible: bool ``(N, T)`` on the CPU: whether the mask has any pixel.
    """

    masks: Tensor
    labels: Tensor
    visible: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.masks.shape[1]

    def frame(self, t: int) -> FrameTarget:
        """Gives frame ``t``, all objects."""
        return FrameTarget(self.masks[:, t : t + 1], self.labels)

    def rows(self, index: Tensor) -> ClipTargets:
        """Gives the objects of ``index``, int64 on the CPU."""
        on_device = index.to(self.masks.device)
        return ClipTargets(self.masks[on_device], self.labels[on_device], self.visible[index])


def clip_targets(
    instances: ClipInstances, *, size: tuple[int, int], device: torch.device | str
) -> ClipTargets:
    """Pads the masks and drops objects that no frame shows.

    Args:
        instances: ground truth of the frames that are used.
        size: height and width of the padded network input.
        device: where the losses are computed.
    """
    visible = instances.masks.flatten(2).any(dim=2)
    kept = visible.any(dim=1)
    shown = instances[kept].pad_to(*size)
    return ClipTargets(shown.masks.to(device).float(), shown.labels.to(device), visible[kept].cpu())


def tall_target(targets: ClipTargets) -> FrameTarget:
    """Lays the frames of a clip under each other: masks ``(N, 1, T*H, W)``."""
    return FrameTarget(targets.masks.flatten(1, 2)[:, None], targets.labels)
