"""Slot attention: slots compete for the tokens of a frame (Locatello et al., NeurIPS 2020).

Shapes: M frames of all clips, N tokens, D their features, K slots, S slot features, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.mlp import MLP
from vidseg.layers.onednn import Linear, linear

from .grounding import Grounding, Holdings, hold

__all__ = ["SlotAttention", "full_precision"]

_FEW_ROWS = 64


class SlotAttention(nn.Module):
    """Slots read tokens; the softmax over slots makes them compete.

    Args:
        dim: D.
        slot_dim: S.
        iters: iterations of a call that names no number.
        heads: H, a divisor of S; the softmax runs over slots and heads together.
        mlp_ratio: hidden width of the network on each slot, relative to S.
        temperature: by which logits are divided, beside the root of the width of a head.
        implicit: let gradients through the last iteration alone (Chang et al., NeurIPS 2022); the
            slots at the start get theirs straight through (Jia et al., ICLR 2023).
        eps: added to the attention before it is normalised over tokens.
        position: let the distance of a token from the centre of a slot count, see ``Grounding``.
        colour: let its distance from the mean colour of a slot count.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        dim: int,
        slot_dim: int,
        *,
        iters: int = 3,
        heads: int = 1,
        mlp_ratio: float = 4,
        temperature: float = 1.0,
        implicit: bool = False,
        eps: float = 1e-8,
        position: bool = False,
        colour: bool = False,
    ) -> None:
        super().__init__()
        if iters < 1:
            raise ValueError(f"slot attention needs 1 iteration or more, not {iters}")
        if slot_dim % heads:
            raise ValueError(f"{heads} heads cannot share slots of {slot_dim} evenly")
        grounded = position or colour
        if grounded and heads > 1:
            raise ValueError(f"places and colours count in attention of 1 head, not of {heads}")
        self.slot_dim, self.iters, self.heads = slot_dim, iters, heads
        self.scale = (slot_dim // heads) ** -0.5 / temperature
        self.implicit, self.eps = implicit, eps
        self.norm_inputs = nn.LayerNorm(dim)
        self.norm_slots = nn.LayerNorm(slot_dim)
        self.norm_mlp = nn.LayerNorm(slot_dim)
        self.to_kv = Linear(dim, 2 * slot_dim, bias=False)
        self.to_q = nn.Linear(slot_dim, slot_dim, bias=False)
        self.gru = nn.GRUCell(slot_dim, slot_dim)
        self.mlp = MLP(slot_dim, int(mlp_ratio * slot_dim), slot_dim, 2)
        self.grounding = Grounding(slot_dim, position=position, colour=colour) if grounded else None
        nn.init.xavier_uniform_(self.to_kv.weight[:slot_dim].detach())
        nn.init.xavier_uniform_(self.to_kv.weight[slot_dim:].detach())
        nn.init.xavier_uniform_(self.to_q.weight)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Maps tokens ``(..., N, D)`` to keys, scaled for logits, and values, ``(..., N, S)``."""
        inputs = self.norm_inputs(tokens)
        # Two products, since a half of the result of one would not be contiguous, and the attention
        # reads keys and values in every iteration.
        to_k, to_v = self.to_kv.weight.chunk(2)
        return linear(inputs, to_k * self.scale), linear(inputs, to_v)

    def forward(
        self,
        k: Tensor,
        v: Tensor,
        slots: Tensor,
        *,
        iters: int | None = None,
        valid: Tensor | None = None,
        looks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Refines the slots of frames that nothing came before.

        Args:
            k: of :meth:`keys_values`, ``(M, N, S)``.
            v: likewise.
            slots: at the start, ``(M, K, S)``.
            iters: iterations; None for the number of the constructor.
            valid: bool ``(M, N)``; slots read nothing from the other tokens.
            looks: places and colours of the tokens, ``(M, N, 8)``, see ``token_looks``; needed with
                ``grounding``.

        Returns:
            The slots ``(M, K, S)``, and the attention of the last iteration, float32
            ``(M, K, N)``, which sums to 1 over slots.

        Raises:
            ValueError: if places and colours are needed and not given.
        """
        return self.refine(k, v, slots, iters=iters, valid=valid, looks=looks)[:2]

    def refine(
        self,
        k: Tensor,
        v: Tensor,
        slots: Tensor,
        *,
        held: Holdings | None = None,
        iters: int | None = None,
        valid: Tensor | None = None,
        looks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Holdings | None]:
        """Refines slots of frames that others may have come before.

        Args:
            k: see :meth:`forward`, as all but ``held``.
            v: see there.
            slots: see there.
            held: what the slots hold after the frame before; None at the start.
            iters: see there.
            valid: see there.
            looks: see there.

        Returns:
            Slots and attention, and what the slots hold now, None without ``grounding``.
        """
        if self.grounding is not None and looks is None:
            raise ValueError("slot attention with places or colours needs the looks of the tokens")
        iters = self.iters if iters is None else iters
        skips = self.implicit and torch.is_grad_enabled()
        if skips and held is not None:
            held = held.detach()
        earlier = None if held is None else held.total
        frame = _Frame(self._split(k), self._split(v), valid, looks, earlier)
        if skips:
            start = slots
            with torch.no_grad():
                for _ in range(iters - 1):
                    slots, _, held = self._step(frame, slots, held)
            slots = slots.detach() + (start - start.detach())
            iters = 1
        attn = k.new_empty(0)
        for _ in range(iters):
            slots, attn, held = self._step(frame, slots, held)
        return slots, attn, held

    def _step(
        self, frame: _Frame, slots: Tensor, held: Holdings | None
    ) -> tuple[Tensor, Tensor, Holdings | None]:
        normed = self.norm_slots(slots)
        q = self._split(_linear(normed, self.to_q.weight))
        logits = full_precision(q @ frame.k.mT)  # (M, K, N), of several heads (M, H, K, N)
        if self.grounding is not None and held is not None:
            logits = logits + self.grounding(normed, held, frame.looks)
        attn = logits.flatten(1, -2).softmax(1).view_as(logits)
        weights = attn + self.eps
        if frame.valid is not None:
            valid = frame.valid
            weights = weights * valid.view(len(valid), *[1] * (weights.dim() - 2), -1)
        if self.grounding is not None and frame.looks is not None:
            held = hold(weights, frame.looks, frame.earlier)
        weights = weights / weights.sum(-1, keepdim=True)
        update = weights.to(frame.v.dtype) @ frame.v
        if self.heads > 1:
            update, attn = update.transpose(1, 2).flatten(2), attn.sum(1)
        slots = self._gate(update, slots)
        layers: Any = self.mlp.layers
        first, second = layers
        inner = F.relu(_linear(self.norm_mlp(slots), first.weight, first.bias))
        return slots + _linear(inner, second.weight, second.bias), attn, held

    def _gate(self, update: Tensor, slots: Tensor) -> Tensor:
        """Runs the recurrent unit, as ``nn.GRUCell`` does, on ``(M, K, S)``."""
        gru, width = self.gru, self.slot_dim
        new = _linear(update, gru.weight_ih, gru.bias_ih)  # (M, K, 3 S)
        old = _linear(slots, gru.weight_hh, gru.bias_hh)
        gates = (new[..., : 2 * width] + old[..., : 2 * width]).sigmoid()
        reset, keep = gates.chunk(2, -1)
        candidate = torch.addcmul(new[..., 2 * width :], reset, old[..., 2 * width :]).tanh()
        return torch.lerp(candidate.to(slots.dtype), slots, keep.to(slots.dtype))

    def _split(self, x: Tensor) -> Tensor:
        """Takes several heads of ``(M, n, S)`` apart, ``(M, H, n, S / H)``."""
        if self.heads == 1:
            return x
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


@dataclass(frozen=True)
class _Frame:
    """What all iterations on a frame read: the arguments of ``refine``, by heads."""

    k: Tensor
    v: Tensor
    valid: Tensor | None
    looks: Tensor | None
    earlier: Tensor | None


def full_precision(x: Tensor) -> Tensor:
    """Gives float32 of a lower precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # The core's layer fills up a handful of rows, which here come hundreds of times in a row.
    few = x.numel() < _FEW_ROWS * x.shape[-1]
    return F.linear(x, weight, bias) if few else linear(x, weight, bias)
