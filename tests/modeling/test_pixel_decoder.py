"""Pixel decoders: parity with the published code, shapes, gradients, errors."""

from __future__ import annotations

import pytest
import torch

from tests.golden_utils import load_case
from vidseg.config import get_cfg
from vidseg.errors import ConfigError
from vidseg.modeling.pixel_decoder import FPNPixelDecoder, MSDeformPixelDecoder
from vidseg.modeling.pixel_decoder.base import select_shapes
from vidseg.structures import ShapeSpec

SHAPES = {
    name: ShapeSpec(channels=channels, stride=stride)
    for name, channels, stride in [
        ("res2", 16, 4),
        ("res3", 24, 8),
        ("res4", 32, 16),
        ("res5", 40, 32),
    ]
}
COARSE = {name: SHAPES[name] for name in ("res3", "res4", "res5")}


def features_of(batch: int, height: int, width: int) -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(
            batch, shape.channels, -(-height // shape.stride), -(-width // shape.stride)
        )
        for name, shape in SHAPES.items()
    }


def msdeform(**options: int) -> MSDeformPixelDecoder:
    sizes = {"conv_dim": 32, "mask_dim": 16, "num_heads": 4, "num_layers": 2} | options
    return MSDeformPixelDecoder(SHAPES, COARSE, **sizes)


@pytest.mark.parametrize("run", ["a", "b"])
def test_equals_the_published_code(run: str) -> None:
    case = load_case("dvis_daq/pixel_decoder_msdeform")
    decoder = MSDeformPixelDecoder(SHAPES, COARSE, conv_dim=64, mask_dim=64, num_layers=3).eval()
    assert {name: tuple(w.shape) for name, w in decoder.state_dict().items()} == case.names_shapes
    decoder.load_state_dict(case.state_dict())
    layers: list[torch.Tensor] = []
    attention: list[torch.Tensor] = []
    for layer in decoder.transformer.encoder.layers:
        layer.register_forward_hook(lambda _m, _a, out: layers.append(out))
        layer.self_attn.register_forward_hook(lambda _m, _a, out: attention.append(out))
    with torch.no_grad():
        out = decoder({name: case.inputs[f"{run}_{name}"] for name in SHAPES})
    found = {
        f"{run}_mask_features": out.mask_features,
        f"{run}_enc0_attn": attention[0],
        **{f"{run}_enc{i}": tokens for i, tokens in enumerate(layers)},
        **{f"{run}_multi_scale_{i}": feature for i, feature in enumerate(out.multi_scale)},
    }
    for name, value in found.items():
        torch.testing.assert_close(value, case.outputs[name], atol=1e-4, rtol=0, msg=name)


@pytest.mark.parametrize("decoder", ["fpn", "msdeform"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 98)])
def test_shapes_and_gradients(decoder: str, height: int, width: int) -> None:
    fpn = decoder == "fpn"
    module = FPNPixelDecoder(SHAPES, conv_dim=32, mask_dim=16) if fpn else msdeform()
    features = features_of(2, height, width)
    out = module(features)
    assert out.mask_features.shape == (2, 16, *features["res2"].shape[-2:])
    strides = ("res5", "res4", "res3")
    assert [m.shape[-2:] for m in out.multi_scale] == [features[n].shape[-2:] for n in strides]
    sum((m * torch.randn_like(m)).sum() for m in [out.mask_features, *out.multi_scale]).backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("decoder", ["fpn", "msdeform"])
def test_frames_are_independent(decoder: str) -> None:
    fpn = decoder == "fpn"
    module = FPNPixelDecoder(SHAPES, conv_dim=32, mask_dim=16) if fpn else msdeform()
    features = features_of(3, 64, 64)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        out = module(features)
        permuted = module({name: feature[order] for name, feature in features.items()})
    torch.testing.assert_close(permuted.mask_features, out.mask_features[order])


def test_stays_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        out = msdeform()(features_of(1, 64, 64))
    assert out.mask_features.dtype == torch.float32


def test_names_the_missing_feature() -> None:
    with pytest.raises(ConfigError, match=r"IN_FEATURES.*'res6'.*res5"):
        select_shapes(SHAPES, ["res2", "res6"], key="MODEL.SEM_SEG_HEAD.IN_FEATURES")


def test_needs_three_coarse_maps() -> None:
    with pytest.raises(ConfigError, match="ENCODER_IN_FEATURES must name 3"):
        MSDeformPixelDecoder(SHAPES, {"res5": SHAPES["res5"]})


@pytest.mark.parametrize("num_heads", [0, 7])
def test_heads_divide_the_width(num_heads: int) -> None:
    cfg = get_cfg()
    cfg.MODEL.MASK_FORMER.NHEADS = num_heads
    with pytest.raises(
        ConfigError,
        match=rf"NHEADS is {num_heads} and .*CONVS_DIM {cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM}",
    ):
        MSDeformPixelDecoder.from_config(cfg, SHAPES)
