"""The temporal slot transformer: starts as nothing, takes any length, reads nothing hidden."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidseg.projects.slot_bert.frame_masking import interpolate
from vidseg.projects.slot_bert.temporal_transformer import AXES, TemporalSlotTransformer

DIM, SLOTS = 16, 3
LENGTHS = (1, 2, 4, 5, 6, 23, 24, 29, 50)


def build(*, seed: int = 0, is_trained: bool = True, **options: Any) -> TemporalSlotTransformer:
    torch.manual_seed(seed)
    options = {"num_layers": 2, "window": 6, "stride": 4, **options}
    module = TemporalSlotTransformer(DIM, **options)
    if is_trained:
        torch.nn.init.normal_(module.output.weight, std=0.3)
        torch.nn.init.normal_(module.output.bias, std=0.3)
    return module.eval()


def slots_of(num_frames: int, num_clips: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num_clips, num_frames, SLOTS, DIM, generator=generator)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("position", ["sinusoidal", "learned"])
def test_any_length(axis: str, position: str) -> None:
    module = build(axis=axis, position=position, position_length=5, num_identities=SLOTS)
    for num_frames in LENGTHS:
        slots = slots_of(num_frames)
        out = module(slots)
        assert out.shape == slots.shape
        assert out.isfinite().all()
        assert torch.equal(out, module(slots))
        assert ((out - slots).abs().amax((2, 3)) > 1e-3).all(), "every frame is covered"


@pytest.mark.parametrize("axis", AXES)
def test_an_untrained_one_changes_nothing(axis: str) -> None:
    slots = slots_of(9)
    assert torch.equal(build(is_trained=False, axis=axis)(slots), slots)
    hidden = torch.zeros(slots.shape[:3], dtype=torch.bool)
    hidden[0, 4], hidden[1, 0, 2] = True, True
    expected = interpolate(slots, hidden)
    assert torch.equal(build(is_trained=False, axis=axis)(slots, hidden), expected)
    assert not torch.equal(expected, slots)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("fill", ["interpolation", "none"])
def test_hidden_slots_are_not_read(axis: str, fill: str) -> None:
    module, slots = build(axis=axis, fill=fill), slots_of(8).requires_grad_()
    hidden = torch.zeros(slots.shape[:3], dtype=torch.bool)
    hidden[0, 2], hidden[0, 5, 1], hidden[1, :, 0] = True, True, True
    out = module(slots, hidden)
    other = torch.where(hidden[..., None], slots + 100, slots)
    assert torch.equal(module(other, hidden), out)
    (grad,) = torch.autograd.grad(out.square().sum(), slots)
    assert (grad[hidden] == 0).all()
    assert (grad[~hidden].abs().amax(-1) > 0).all()
    masked = module(slots, hidden)[hidden]
    nn.init.normal_(module.mask_token.weight)
    assert not torch.allclose(module(slots, hidden)[hidden], masked), "the token is read"


def test_who_reads_whom() -> None:
    slots = slots_of(6, 1).requires_grad_()

    def read(**options: Any) -> Tensor:
        out = build(**options)(slots)[0, 2, 1]
        (grad,) = torch.autograd.grad(out.sum(), slots)
        return grad[0].abs().amax(-1) > 0

    over_time = read(axis="time")
    assert over_time[:, 1].all()
    assert not over_time[:, [0, 2]].any(), "tracks of other slots are not read"
    assert read(axis="factorised").all()
    assert read(axis="joint", num_layers=1).all()


def test_slot_identity_breaks_the_symmetry_of_slots() -> None:
    slots = slots_of(5)
    order = torch.tensor([2, 0, 1])
    plain, named = build(axis="joint"), build(axis="joint", num_identities=SLOTS)
    torch.testing.assert_close(plain(slots[:, :, order]), plain(slots)[:, :, order])
    torch.nn.init.normal_(named.identity.weight)
    assert not torch.allclose(named(slots[:, :, order]), named(slots)[:, :, order], atol=1e-2)


def test_time_matters_in_either_direction() -> None:
    slots = slots_of(5)
    for position in ("sinusoidal", "learned"):
        module = build(position=position)
        if module.time is not None:
            torch.nn.init.normal_(module.time.weight)
        backwards = module(slots.flip(1)).flip(1)
        assert not torch.allclose(backwards, module(slots), atol=1e-2)


def test_learned_positions_stretch() -> None:
    module = build(position="learned", position_length=4, window=7)
    module.time.weight.data = torch.arange(4.0)[:, None].expand(4, DIM).contiguous()
    code = module._time_code(slots_of(7))
    torch.testing.assert_close(code[:, 0], torch.linspace(0, 3, 7))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="3 heads cannot share a width of 16 evenly"):
        build(num_heads=3)
    with pytest.raises(ValueError, match="windows of 6 frames every 7 frames leave some out"):
        build(window=6, stride=7)
