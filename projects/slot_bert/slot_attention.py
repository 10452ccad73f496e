"""Slot attention: slots compete for the tokens of a frame (Locatello et al., NeurIPS 2020).

Shapes: M frames of all clips, N tokens, D their features, K slots, S slot features, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidseg.layers.mlp import MLP
from vidseg.layers.onednn import Linear

__all__ = ["SlotAttention"]


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
    ) -> None:
        super().__init__()
        if iters < 1:
            raise ValueError(f"slot attention needs 1 iteration or more, not {iters}")
        if slot_dim % heads:
            raise ValueError(f"{heads} heads cannot share slots of {slot_dim} evenly")
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
        nn.init.xavier_uniform_(self.to_kv.weight[:slot_dim].detach())
        nn.init.xavier_uniform_(self.to_kv.weight[slot_dim:].detach())
        nn.init.xavier_uniform_(self.to_q.weight)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Maps tokens ``(..., N, D)`` to keys and values, each ``(..., N, S)``."""
        k, v = self.to_kv(self.norm_inputs(tokens)).chunk(2, -1)
        return k, v

    def forward(
        self,
        k: Tensor,
        v: Tensor,
        slots: Tensor,
        *,
        iters: int | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Refines slots.

        Args:
            k: keys of the tokens of each frame, ``(M, N, S)``.
            v: their values, likewise.
            slots: at the start, ``(M, K, S)``.
            iters: iterations; None for the number of the constructor.
            valid: bool ``(M, N)``; slots read nothing from the other tokens.

        Returns:
            The slots ``(M, K, S)``, and the attention of the last iteration, float32
            ``(M, K, N)``, which sums to 1 over slots.
        """
        iters = self.iters if iters is None else iters
        if self.implicit and torch.is_grad_enabled():
            start = slots
            with torch.no_grad():
                for _ in range(iters - 1):
                    slots, _ = self._step(k, v, slots, valid)
            slots = slots.detach() + (start - start.detach())
            return self._step(k, v, slots, valid)
        attn = k.new_empty(0)
        for _ in range(iters):
            slots, attn = self._step(k, v, slots, valid)
        return slots, attn

    def _step(
        self, k: Tensor, v: Tensor, slots: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        num_frames, num_slots, width = slots.shape
        q = self.to_q(self.norm_slots(slots)) * self.scale
        logits = (self._split(q) @ self._split(k).mT).float()  # (M, H, K, N)
        attn = logits.flatten(1, 2).softmax(1).view_as(logits)
        weights = attn + self.eps
        if valid is not None:
            weights = weights * valid[:, None, None]
        weights = weights / weights.sum(-1, keepdim=True)
        update = (weights.to(v.dtype) @ self._split(v)).transpose(1, 2)  # (M, K, H, S / H)
        rows = slots.reshape(-1, width)
        slots = self.gru(update.reshape(-1, width), rows).view(num_frames, num_slots, width)
        return slots + self.mlp(self.norm_mlp(slots)), attn.sum(1)

    def _split(self, x: Tensor) -> Tensor:
        """Takes the heads of ``(M, n, S)`` apart, ``(M, H, n, S / H)``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
