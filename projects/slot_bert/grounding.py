"""Where a slot is and what colour it has, as parts of what it competes with.

A slot attends like a component of a mixture of Gaussians: beside the product of query and key, a
token counts for less the farther it lies from the centre of what the slot holds, and the more its
colour differs from the mean colour of what the slot has held so far. How much, each slot tells.
The logit of slot k at token n becomes ``q_k k_n - beta_k |x_n - p_k|^2 - gamma_k |c_n - mu_k|^2``.

Shapes: M frames, N tokens, K slots, S slot features; looks are 8 numbers of each token.

Source: Kirilenko et al., "Object-Centric Learning with Slot Mixture Module", ICLR 2024; Biza et
al., "Invariant Slot Attention", ICML 2023, for the centres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .appearance import weigh_luma
from .positions import cell_centres

__all__ = ["NUM_MEANS", "Grounding", "Holdings", "hold", "mean_looks", "token_looks"]

NUM_MEANS = 5
"""Numbers of a mean look: x, y and a colour."""

_PLACE_SCALE, _COLOUR_SCALE = 4.0, 30.0
_EPS = 1e-6
# Columns of looks: x and y, the sum of their squares, colours, the sum of theirs, and 1. A distance
# to any point is linear in them, and so are centre, mean colour and area of a mask.
_PLACE, _COLOUR, _ONE = slice(0, 2), slice(3, 6), slice(7, 8)


@dataclass(frozen=True)
class Holdings:
    """What slots hold, for the iterations and frames that follow.

    Attributes:
        latest: looks that each slot holds of the present frame, summed, ``(M, K, 8)``.
        earlier: likewise of all frames before it.
    """

    latest: Tensor
    earlier: Tensor

    @property
    def total(self) -> Tensor:
        """Sums of all frames, ``(M, K, 8)``."""
        return self.earlier + self.latest

    @property
    def centres(self) -> Tensor:
        """X and y in [-1, 1] in the present frame, ``(M, K, 2)``."""
        return self.latest[..., _PLACE] / self.latest[..., _ONE]

    @property
    def colours(self) -> Tensor:
        """Means of all frames, ``(M, K, 3)``."""
        total = self.total
        return total[..., _COLOUR] / (total[..., _ONE] + _EPS)

    def detach(self) -> Holdings:
        """Gives the same without gradients."""
        return Holdings(self.latest.detach(), self.earlier.detach())


class Grounding(nn.Module):
    """Adds places and colours to the logits of slot attention.

    Args:
        slot_dim: S.
        position: whether places count.
        colour: whether colours count.
    """

    def __init__(self, slot_dim: int, *, position: bool, colour: bool) -> None:
        super().__init__()
        self.to_beta = _weight_of(slot_dim) if position else None
        self.to_gamma = _weight_of(slot_dim) if colour else None

    def forward(self, slots: Tensor, held: Holdings, looks: Tensor) -> Tensor:
        """Gives what is added to the logits.

        Args:
            slots: after their norm, ``(M, K, S)``.
            held: by the slots after the iteration before.
            looks: ``(M, N, 8)``.

        Returns:
            Float32 ``(M, K, N)``.
        """
        with torch.autocast(slots.device.type, enabled=False):
            slots = slots.to(torch.promote_types(slots.dtype, torch.float32))
            constant = slots.new_zeros(*slots.shape[:2], 1)
            parts = []
            for layer, scale, point in (
                (self.to_beta, _PLACE_SCALE, held.centres),
                (self.to_gamma, _COLOUR_SCALE, held.colours),
            ):
                if layer is None:
                    parts.append(slots.new_zeros(*slots.shape[:2], point.shape[-1] + 1))
                    continue
                weight = scale * F.softplus(layer(slots))  # (M, K, 1)
                parts += [2 * weight * point, -weight]
                constant = constant - weight * point.square().sum(-1, keepdim=True)
            terms: Tensor = torch.cat([*parts, constant], -1) @ looks.to(slots.dtype).mT
            return terms


def hold(weights: Tensor, looks: Tensor, earlier: Tensor | None) -> Holdings:
    """Gives what slots hold.

    Args:
        weights: attention, zero at tokens that do not count, ``(M, K, N)``.
        looks: ``(M, N, 8)``.
        earlier: sums of the frames before, ``(M, K, 8)``; None if there are none.
    """
    with torch.autocast(looks.device.type, enabled=False):
        latest = weights @ looks.to(weights.dtype)
    return Holdings(latest, torch.zeros_like(latest) if earlier is None else earlier)


def mean_looks(attn: Tensor, looks: Tensor) -> Tensor:
    """Gives the mean place and colour of what slots attend to.

    Args:
        attn: ``(..., K, N)``.
        looks: ``(..., N, 8)``.

    Returns:
        ``(..., K, NUM_MEANS)``.
    """
    sums = attn @ looks.to(attn.dtype)
    return torch.cat([sums[..., _PLACE], sums[..., _COLOUR]], -1) / (sums[..., _ONE] + _EPS)


def token_looks(video: Tensor, grid: tuple[int, int], luma: float = 1.0) -> Tensor:
    """Gives places and colours of tokens in the form that :class:`Grounding` reads.

    Args:
        video: ``(B, T, 3, H, W)`` in [0, 1].
        grid: rows and columns of the tokens; each has the mean colour of its pixels.
        luma: weight of brightness beside chroma, see ``weigh_luma``.

    Returns:
        ``(B, T, N, 8)``, float32.
    """
    frames = video.flatten(0, 1).float()
    small = F.interpolate(frames, grid, mode="area").flatten(2)  # (B T, 3, N)
    colours = weigh_luma(small, luma).mT
    places = cell_centres(*grid, device=video.device).expand(len(frames), -1, -1)
    columns = [
        places,
        places.square().sum(-1, keepdim=True),
        colours,
        colours.square().sum(-1, keepdim=True),
        torch.ones_like(places[..., :1]),
    ]
    return torch.cat(columns, -1).unflatten(0, video.shape[:2])


def _weight_of(slot_dim: int) -> nn.Linear:
    layer = nn.Linear(slot_dim, 1)
    nn.init.zeros_(layer.bias)
    return layer
