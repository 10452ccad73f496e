"""What slots are before they have seen anything.

Shapes: B clips, T frames, K slots, S slot features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vidseg.layers.mlp import MLP

__all__ = ["INITS", "InitialSlots"]

INITS = ("random", "gaussian", "learned", "boxes")


class InitialSlots(nn.Module):
    """Slots at the start of a frame, or of a clip whose frames hand theirs on.

    Evaluation draws from a generator of its own, for each frame anew: the slots of a frame depend
    neither on the clips beside it nor on where a long video was cut.

    Args:
        num_slots: K.
        dim: S.
        init: ``"random"``: one normal distribution for all slots, wide at the start;
            ``"gaussian"``: the same, narrow at the start; ``"learned"``: a vector for each slot;
            ``"boxes"``: from boxes of objects, as in Kipf et al., ICLR 2022.
        sigma: spread of ``"random"`` at the start.
        shared_noise: one draw for all frames of a clip.
        eval_seed: of the draws in evaluation.

    Raises:
        ValueError: if there is no such init.
    """

    def __init__(
        self,
        num_slots: int,
        dim: int,
        *,
        init: str = "random",
        sigma: float = 1.0,
        shared_noise: bool = False,
        eval_seed: int = 0,
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f"init {init!r} is none of {', '.join(INITS)}")
        self.num_slots, self.dim, self.init = num_slots, dim, init
        self.shared_noise, self.eval_seed = shared_noise, eval_seed
        if init == "learned":
            self.slots = nn.Parameter(torch.randn(num_slots, dim))
        elif init == "boxes":
            self.box_mlp = MLP(4, 4 * dim, dim, 2)
            self.background = nn.Parameter(torch.randn(dim))
        else:
            spread = sigma if init == "random" else dim**-0.5
            self.mean = nn.Parameter(torch.randn(dim) * dim**-0.5)
            self.log_sigma = nn.Parameter(torch.full((dim,), math.log(spread)))

    def no_weight_decay(self) -> set[str]:
        """Names the parameters that the optimiser leaves as large as they are."""
        return {"slots", "background", "mean", "log_sigma"}

    def forward(
        self,
        num_clips: int,
        num_frames: int,
        *,
        first_frame: int = 0,
        boxes: Tensor | None = None,
    ) -> Tensor:
        """Makes slots.

        Args:
            num_clips: B.
            num_frames: T.
            first_frame: number of the first of them in its video.
            boxes: left, top, right and bottom of objects in the first frame of each clip, as
                shares of width and height, ``(B, n, 4)`` with n up to K; a point is a box without
                extent; rows of NaN stand for no object. Needed by ``"boxes"`` alone.

        Returns:
            ``(B, T, K, S)``.

        Raises:
            ValueError: if ``"boxes"`` gets none, or more than there are slots.
        """
        shape = (num_clips, num_frames, self.num_slots, self.dim)
        if self.init == "learned":
            return self.slots.expand(shape)
        if self.init == "boxes":
            return self._from_boxes(boxes, num_clips)[:, None].expand(shape)
        drawn_frames = 1 if self.shared_noise else num_frames
        if self.training:
            noise = torch.randn(
                num_clips, drawn_frames, *shape[2:], device=self.mean.device, dtype=self.mean.dtype
            )
        else:
            first = 0 if self.shared_noise else first_frame
            noise = torch.stack([self._draw(first + index) for index in range(drawn_frames)])
        return (self.mean + self.log_sigma.exp() * noise).expand(shape)

    def _draw(self, frame: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.eval_seed + frame)
        noise = torch.randn(self.num_slots, self.dim, generator=generator)
        return noise.to(self.mean.device, self.mean.dtype)

    def _from_boxes(self, boxes: Tensor | None, num_clips: int) -> Tensor:
        if boxes is None:
            raise ValueError("slots that start from boxes need the boxes of the first frame")
        if boxes.shape[0] != num_clips or boxes.shape[1] > self.num_slots:
            raise ValueError(
                f"boxes of shape {tuple(boxes.shape)} do not fit {num_clips} clips and "
                f"{self.num_slots} slots"
            )
        given = boxes.isfinite().all(-1, keepdim=True)  # (B, n, 1)
        coded = self.box_mlp(2 * boxes.masked_fill(~given, 0).to(self.background.dtype) - 1)
        slots = self.background.expand(num_clips, self.num_slots, -1)
        used = torch.where(given, coded, self.background)
        return torch.cat([used, slots[:, boxes.shape[1] :]], 1)
