"""Slots of clips, against slot attention as it is published, run frame by frame.

Both sides have the same parameters; that they give the same slots and masks in float32 is checked
first. The peer projects tokens to keys and to values by themselves, frame after frame, in float32.
Shapes: B clips, T frames, N tokens, D token features, K slots, S slot features.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .case import Case, Run

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CASES"]

_SLOTS = 7
_CLIP, _SIDE = 24, 128
_EPS = 1e-8


@dataclass(frozen=True)
class _Size:
    clips: int
    frames: int
    tokens: int
    dim: int
    slot_dim: int

    def __str__(self) -> str:
        return (
            f"{self.clips} clips of {self.frames} frames of {self.tokens} tokens of {self.dim}, "
            f"{_SLOTS} slots of {self.slot_dim}, 3 iterations"
        )


class _Attention:
    """Both sides' slot attention over clips ``(B, T, N, D)``, with the same parameters."""

    def __init__(self, size: _Size, *, recurrent: bool) -> None:
        import torch

        from vidseg.projects.slot_bert.initial_slots import InitialSlots
        from vidseg.projects.slot_bert.slot_attention import SlotAttention

        self.recurrent = recurrent
        self.attention = SlotAttention(size.dim, size.slot_dim)
        self.init = InitialSlots(_SLOTS, size.slot_dim, init="learned")
        self.tokens = torch.randn(size.clips, size.frames, size.tokens, size.dim)
        with torch.no_grad():
            for a, b in zip(self.ours(self.tokens), self.theirs(self.tokens), strict=True):
                torch.testing.assert_close(a, b, atol=1e-4, rtol=0)

    def ours(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        from vidseg.projects.slot_bert.time_modes import run_independent, run_recurrent

        if self.recurrent:
            return run_recurrent(self.attention, self.init, None, tokens, iters_next=3)[:2]
        return run_independent(self.attention, self.init, tokens)

    def theirs(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        slots = start = self.init(len(tokens), 1)[:, 0]
        found = []
        for frame in range(tokens.shape[1]):
            slots, attn = _published(
                self.attention, tokens[:, frame], slots if self.recurrent else start
            )
            found.append((slots, attn))
        all_slots, all_attn = zip(*found, strict=True)
        return torch.stack(all_slots, 1), torch.stack(all_attn, 1)

    def parameters(self) -> list[Tensor]:
        return [*self.attention.parameters(), *self.init.parameters()]


def _published(module: Any, tokens: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    """Slot attention on the tokens of a frame, ``(B, N, D)``, operation by operation.

    Source: Locatello et al., NeurIPS 2020, algorithm 1.
    """
    import torch
    from torch.nn import functional as F

    to_k, to_v = module.to_kv.weight.chunk(2)
    inputs = module.norm_inputs(tokens)
    k, v = F.linear(inputs, to_k), F.linear(inputs, to_v)
    attn = k
    first, second = module.mlp.layers
    for _ in range(module.iters):
        q = F.linear(module.norm_slots(slots), module.to_q.weight) * module.scale
        attn = torch.einsum("bkd,bnd->bkn", q, k).softmax(1)
        weights = attn + _EPS
        weights = weights / weights.sum(-1, keepdim=True)
        update = torch.einsum("bnd,bkn->bkd", v, weights)
        slots = module.gru(update.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        inner = F.relu(F.linear(module.norm_mlp(slots), first.weight, first.bias))
        slots = slots + F.linear(inner, second.weight, second.bias)
    return slots, attn


def _autocast(bf16: bool) -> contextlib.AbstractContextManager[Any]:
    import torch

    return torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()


def _infer(size: _Size, *, recurrent: bool, bf16: bool, is_ours: bool) -> Run:
    import torch

    sides = _Attention(size, recurrent=recurrent)
    side = sides.ours if is_ours else sides.theirs

    @torch.inference_mode()
    def run() -> object:
        with _autocast(bf16 and is_ours):
            return side(sides.tokens)

    return run


def _train(size: _Size, *, recurrent: bool, bf16: bool, is_ours: bool) -> Run:
    import torch

    sides = _Attention(size, recurrent=recurrent)
    side = sides.ours if is_ours else sides.theirs
    leaves = [sides.tokens.requires_grad_(), *sides.parameters()]
    with torch.no_grad():
        gradients = [torch.randn_like(x) for x in side(sides.tokens)]

    def run() -> object:
        with _autocast(bf16 and is_ours):
            found = side(sides.tokens)
        return torch.autograd.grad(found, leaves, gradients)

    return run


def _segment(*, bf16: bool, is_ours: bool) -> Run:
    """One clip from pixels to masks of its size, as the published phase 1 does it."""
    import torch
    from torch.nn import functional as F

    from vidseg.projects.slot_bert.encoder import SimpleConvEncoder, TokenHead
    from vidseg.projects.slot_bert.initial_slots import InitialSlots
    from vidseg.projects.slot_bert.positions import build_position
    from vidseg.projects.slot_bert.slot_attention import SlotAttention
    from vidseg.projects.slot_bert.time_modes import run_independent

    encoder = SimpleConvEncoder().eval()
    head = TokenHead(encoder.out_channels, build_position("fourier", encoder.out_channels))
    attention, init = SlotAttention(encoder.out_channels, 128), InitialSlots(_SLOTS, 128).eval()
    video = torch.rand(_CLIP, 3, _SIDE, _SIDE)

    def masks(attn: Tensor) -> Tensor:
        side = _SIDE // encoder.stride
        maps = attn.unflatten(-1, (side, side))
        return F.interpolate(maps, (_SIDE, _SIDE), mode="bilinear", align_corners=False)

    def ours() -> Tensor:
        tokens = head(encoder(video))
        return masks(run_independent(attention, init, tokens[None])[1][0])

    def theirs() -> Tensor:
        found = []
        for frame, start in zip(video.split(1), init(1, _CLIP)[0].split(1), strict=True):
            for block in encoder.blocks:
                maps = F.conv2d(frame, block.weight, stride=block.stride, padding=block.padding)
                frame = F.relu(block.norm(maps))
            code = head.position(*frame.shape[2:])
            tokens = head.norm(frame.flatten(2).mT + code)
            first, second = head.mlp.layers
            inner = F.relu(F.linear(tokens, first.weight, first.bias))
            tokens = F.linear(inner, second.weight, second.bias)
            found.append(masks(_published(attention, tokens, start)[1]))
        return torch.cat(found)

    with torch.no_grad():
        torch.testing.assert_close(ours(), theirs(), atol=1e-4, rtol=0)

    @torch.inference_mode()
    def run() -> object:
        if not is_ours:
            return theirs()
        with _autocast(bf16):
            return ours()

    return run


def _attention_cases(
    name: str, size: _Size, bars: dict[str, float], *, recurrent: bool = False, bf16: bool = True
) -> tuple[Case, ...]:
    precision = "bfloat16" if bf16 else "float32"
    mode = "recurrent" if recurrent else "independent frames"
    builds = {"": ("inference", _infer), "_train": ("forward and backward", _train)}
    cases = []
    for suffix, (doing, build) in builds.items():
        side = functools.partial(build, size, recurrent=recurrent, bf16=bf16)
        cases.append(
            Case(
                name=f"{name}{suffix}",
                about=f"{doing}, {mode}, {precision}, {size}",
                peer="published slot attention in a loop over frames, float32",
                bars={"cpu": bars[suffix]},
                ours=functools.partial(side, is_ours=True),
                theirs=functools.partial(side, is_ours=False),
                repeats=9,
                warmups=2,
            )
        )
    return tuple(cases)


def _clip_case(name: str, bar: float, *, bf16: bool) -> Case:
    return Case(
        name=name,
        about=f"a clip of {_CLIP} frames of {_SIDE}x{_SIDE} to masks, the published phase 1, "
        + ("bfloat16" if bf16 else "float32"),
        peer="the same frame by frame, float32",
        bars={"cpu": bar},
        ours=lambda: _segment(bf16=bf16, is_ours=True),
        theirs=lambda: _segment(bf16=bf16, is_ours=False),
        repeats=9,
        warmups=2,
    )


_WIDE = _Size(2, 24, 64, 384, 128)
_FINE = _Size(4, 24, 196, 64, 64)
CASES = (
    *_attention_cases("slots_384", _WIDE, {"": 3.0, "_train": 3.0}),
    *_attention_cases("slots_384_fp32", _WIDE, {"": 1.8, "_train": 2.2}, bf16=False),
    *_attention_cases("slots_64", _FINE, {"": 1.8, "_train": 1.8}),
    *_attention_cases("slots_recurrent", _WIDE, {"": 1.3, "_train": 1.2}, recurrent=True),
    _clip_case("slots_clip", 2.0, bf16=True),
    _clip_case("slots_clip_fp32", 1.3, bf16=False),
)
