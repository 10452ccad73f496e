"""Frames to tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.projects.slot_bert import add_config
from vidseg.projects.slot_bert.encoder import (
    NORMS,
    SimpleConvEncoder,
    TokenHead,
    build_conv_encoder,
    pad_to_stride,
    with_differences,
)
from vidseg.projects.slot_bert.positions import POSITIONS, build_position, cell_centres


def node(**settings: Any) -> CfgNode:
    cfg = get_cfg()
    add_config(cfg)
    own: CfgNode = cfg.MODEL.SLOT_BERT.ENCODER
    for key, value in settings.items():
        own[key] = value
    return own


PYRAMID = {"NAME": "pyramid", "STRIDES": [2, 2], "CHANNELS": [8, 12, 16]}
SMALL = {"CHANNELS": [4, 4, 6, 8]}


def test_the_published_encoder_gives_64_tokens_of_384() -> None:
    encoder = build_conv_encoder(node())
    assert (encoder.stride, encoder.divisor, encoder.out_channels) == (16, 16, 384)
    assert encoder(torch.rand(1, 3, 128, 128)).shape == (1, 384, 8, 8)


@pytest.mark.parametrize(
    ("strides", "grid"), [([2, 1, 1, 1], 16), ([2, 2, 1, 1], 8), ([4, 2, 1, 2], 2)]
)
def test_strides_decide_the_grid(strides: list[int], grid: int) -> None:
    encoder = build_conv_encoder(node(STRIDES=strides, **SMALL))
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 8, grid, grid)


def test_a_pyramid_has_tokens_of_its_fine_level() -> None:
    encoder = build_conv_encoder(node(**PYRAMID))
    assert (encoder.stride, encoder.divisor, encoder.out_channels) == (2, 4, 16)
    assert encoder(torch.rand(2, 3, 32, 24)).shape == (2, 16, 16, 12)


def test_a_pyramid_sees_far() -> None:
    encoder = build_conv_encoder(node(NORM="none", **PYRAMID)).double()
    frames = torch.rand(1, 3, 64, 64, dtype=torch.double, requires_grad=True)
    encoder(frames)[0, :, 16, 16].square().sum().backward()
    assert frames.grad is not None
    seen = frames.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    # 15 tokens of the coarse level through the dilations, each of 4 pixels, and the first kernels.
    assert seen[-1] - seen[0] > 55


@pytest.mark.parametrize("settings", [SMALL, PYRAMID], ids=["conv", "pyramid"])
@pytest.mark.parametrize("norm", NORMS)
def test_every_parameter_learns(settings: dict[str, Any], norm: str) -> None:
    torch.manual_seed(0)
    encoder = build_conv_encoder(node(NORM=norm, INPUT_DIFF=True, **settings))
    video = with_differences(torch.rand(2, 2, 3, 32, 32)).flatten(0, 1)
    encoder(video).square().mean().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_bfloat16_stays_inside_the_encoder() -> None:
    torch.manual_seed(0)
    encoder = build_conv_encoder(node(BF16=True, **PYRAMID)).eval()
    frames = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = encoder(frames)
        encoder.bf16 = False
        expected = encoder(frames)
    assert found.dtype is torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NAME": "resnet"}, "encoder 'resnet'"),
        ({"STRIDES": [2, 2]}, "2 strides"),
        ({"STRIDES": [3, 1, 1, 1]}, "none of 2, 4, 8, 16"),
        ({"NORM": "LN"}, "norm 'LN'"),
        ({"NAME": "pyramid"}, "pyramid"),
    ],
)
def test_refuses_what_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_conv_encoder(node(**settings))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (16, 33), (31, 16), (50, 64)])
def test_padding_mirrors_and_can_be_cut_off(size: tuple[int, int]) -> None:
    frames = torch.rand(2, 3, *size)
    padded = pad_to_stride(frames, 16)
    height, width = size
    assert padded.shape[-2] % 16 == padded.shape[-1] % 16 == 0
    assert padded.shape[-2] - height < 16
    assert padded.shape[-1] - width < 16
    torch.testing.assert_close(padded[..., :height, :width], frames)


def test_padding_swings_to_and_fro() -> None:
    row = torch.tensor([[0.0, 1, 2]])
    assert pad_to_stride(row.expand(4, -1), 8)[0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    wide = torch.rand(1, 1, 16, 20)
    expected = torch.nn.functional.pad(wide, (0, 12, 0, 0), mode="reflect")
    torch.testing.assert_close(pad_to_stride(wide, 16), expected)


def test_differences_of_frames() -> None:
    video = torch.rand(2, 4, 3, 6, 5)
    whole = with_differences(video)
    torch.testing.assert_close(whole[:, :, :3], video)
    torch.testing.assert_close(whole[:, 1:, 3:], 3 * (video[:, 1:] - video[:, :-1]))
    torch.testing.assert_close(whole[:, 0, 3:], whole[:, 1, 3:])
    later = with_differences(video[:, 2:], video[:, 1])
    torch.testing.assert_close(later, whole[:, 2:])
    assert not with_differences(video[:, :1])[:, :, 3:].any()


@pytest.mark.parametrize("has_previous", [False, True])
def test_differences_leave_out_frames_that_were_not_seen(has_previous: bool) -> None:
    video = torch.rand(3, 5, 3, 6, 5)
    previous = torch.rand(3, 3, 6, 5) if has_previous else None
    unseen = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 1, 1]]).bool()
    whole = with_differences(video, previous, unseen)
    for row, hidden in enumerate(unseen):
        one = slice(row, row + 1)
        before = None if previous is None else previous[one]
        alone = with_differences(video[one][:, ~hidden], before)
        torch.testing.assert_close(whole[one][:, ~hidden], alone)


@pytest.mark.parametrize("name", POSITIONS)
def test_tokens_stand_row_by_row(name: str) -> None:
    torch.manual_seed(0)
    head = TokenHead(8, build_position(name, 8, (3, 5)))
    features = torch.randn(2, 8, 3, 5)
    tokens = head(features)
    assert tokens.shape == (2, 15, 8)
    # The same features at two places give the same token only if there is no code of the place.
    features[:, :, 2, 1] = features[:, :, 0, 4]
    tokens = head(features)
    assert torch.allclose(tokens[:, 4], tokens[:, 11]) == (name == "none")


def test_codes_of_a_place_agree_between_grids() -> None:
    torch.manual_seed(0)
    fourier = build_position("fourier", 8)
    assert fourier is not None
    # The middle of a grid of odd size is the same place in all of them.
    torch.testing.assert_close(fourier(3, 5)[7], fourier(7, 9)[3 * 9 + 4])
    learned = build_position("learned", 8, (4, 4))
    assert learned is not None
    assert learned(9, 6).shape == (54, 8)
    torch.testing.assert_close(learned(4, 4).mT.reshape(1, 8, 4, 4), learned.table)
    with pytest.raises(ValueError, match="position 'sine'"):
        build_position("sine", 8)


def test_cell_centres_are_x_and_y() -> None:
    assert cell_centres(1, 2).tolist() == [[-0.5, 0], [0.5, 0]]
    assert cell_centres(2, 1).tolist() == [[0, -0.5], [0, 0.5]]


def test_constant_frames_have_finite_tokens() -> None:
    encoder = SimpleConvEncoder((2, 2), (4, 8)).train()
    tokens = TokenHead(8, None)(encoder(torch.zeros(1, 3, 8, 8)))
    assert tokens.isfinite().all()
