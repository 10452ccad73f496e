"""Swin: published numbers and names, timm's numbers, files of weights, and what every key does."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.golden_utils import apply_rule_weights, load_case
from vidseg.config import get_cfg, load_config
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_backbone
from vidseg.modeling.backbone import D2SwinTransformer
from vidseg.modeling.build import construct

SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [2, 2, 2, 2],
    "num_heads": [1, 2, 2, 4],
    "window_size": 3,
    "drop_path_rate": 0.0,
}


def small(**options: Any) -> D2SwinTransformer:
    torch.manual_seed(0)
    return D2SwinTransformer(**{**SMALL, **options})


def outputs(model: D2SwinTransformer, x: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    return list(model(x).values())


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# ---- numbers ----------------------------------------------------------------------------------


@torch.no_grad()
def test_published_numbers_and_names() -> None:
    case = load_case("dvis_daq/swin_tiny_features")
    model = build_backbone(load_config(case.config)).eval()
    assert {n: tuple(w.shape) for n, w in model.state_dict().items()} == case.names_shapes
    apply_rule_weights(model, case)
    for key in ("a", "b"):  # sizes that divide, and 50x71
        for name, found in model(case.inputs[key]).items():
            expected = case.outputs[f"{key}_{name}"]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


NARROW = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("size", "features_only"),
    [(NARROW, False), (NARROW, True), pytest.param({}, False, marks=pytest.mark.slow)],
    ids=["narrow", "narrow features", "tiny"],
)
@torch.no_grad()
def test_equals_timm_with_timms_weights(
    size: dict[str, Any], features_only: bool, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    # At 448 pixels every map has several windows; timm does not shift where there is only one.
    name, options = "swin_tiny_patch4_window7_224", {"pretrained": False, "img_size": 448, **size}
    theirs = timm.create_model(name, features_only=True, **options).eval()
    source = theirs if features_only else timm.create_model(name, **options)
    renamed = {n.replace("layers.", "layers_"): w for n, w in source.state_dict().items()}
    theirs.load_state_dict(renamed, strict=False)
    torch.save(source.state_dict(), tmp_path / "swin.pth")
    ours = D2SwinTransformer(**size).eval()
    unused = ours.load_pretrained(tmp_path / "swin.pth")
    heads = ["head.fc.bias", "head.fc.weight", "norm.bias", "norm.weight"]
    assert sorted(unused) == ([] if features_only else heads)
    x = torch.randn(1, 3, 448, 448)
    for found, expected in zip(ours(x).values(), theirs(x), strict=True):
        normed = F.layer_norm(expected, expected.shape[-1:])  # ours has a norm at every output
        torch.testing.assert_close(found, normed.permute(0, 3, 1, 2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (5, 2), (33, 47), (64, 96)])
def test_any_size(size: tuple[int, int]) -> None:
    model = small().train()
    maps = model(torch.randn(2, 3, *size))
    for name, shape in model.output_shape().items():
        expected = [-(-side // shape.stride) for side in size]
        assert maps[name].shape == (2, shape.channels, *expected)
    sum(m.square().sum() for m in maps.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_frames_do_not_see_each_other() -> None:
    model, x = small().eval(), torch.randn(3, 3, 40, 52)
    together = outputs(model, x)
    for index in range(3):
        for all_maps, own in zip(together, outputs(model, x[index : index + 1]), strict=True):
            torch.testing.assert_close(all_maps[index : index + 1], own, atol=1e-5, rtol=1e-5)


def test_bfloat16() -> None:
    model, x = small().train(), torch.randn(2, 3, 40, 52)
    exact = outputs(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = outputs(model, x)
    sum(m.float().square().mean() for m in rough).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for one, two in zip(exact, rough, strict=True):
        assert (one - two).abs().mean() < 0.05


# ---- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_randomness_in_training_only(key: str) -> None:
    x = torch.randn(4, 3, 24, 24)
    plain, noisy = small(), small(**{key: 0.5})
    noisy.load_state_dict(plain.state_dict())
    assert same(outputs(plain.train(), x), outputs(plain.eval(), x))
    assert not same(outputs(noisy.train(), x), outputs(plain, x))
    assert same(outputs(noisy.eval(), x), outputs(plain, x))


def test_drop_path_leaves_out_the_last_blocks_most_often() -> None:
    model = small(drop_path_rate=0.7)
    rates = [block.drop_path for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.7 * index / 7 for index in range(8)])


def test_recomputing_changes_no_gradient() -> None:
    x, results = torch.randn(2, 3, 24, 24), []
    for use_checkpoint in (False, True):
        model = small(use_checkpoint=use_checkpoint, drop_rate=0.1).train()
        maps = outputs(model, x)
        sum(m.square().sum() for m in maps).backward()
        results.append([p.grad for p in model.parameters()])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)


def test_recomputing_keeps_less() -> None:
    x, kept = torch.randn(2, 3, 64, 64), []
    for use_checkpoint in (False, True):
        model, sizes = small(use_checkpoint=use_checkpoint).train(), []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs(model, x)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


@torch.no_grad()
def test_absolute_positions_are_resized() -> None:
    model = small(absolute_positions=True, pretrain_img_size=32, patch_size=2).eval()
    assert model.absolute_pos_embed.shape == (1, 8, 16, 16)
    plain = small(patch_size=2).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 32, 32)
    assert not same(outputs(model, x), outputs(plain, x))
    model.absolute_pos_embed.fill_(0.25)
    plain.patch_embed.register_forward_hook(lambda module, args, out: out + 0.25)
    for one, two in zip(outputs(model, x[..., :21]), outputs(plain, x[..., :21]), strict=True):
        torch.testing.assert_close(one, two)


@torch.no_grad()
def test_factor_on_the_logits() -> None:
    x = torch.randn(1, 3, 24, 24)
    assert not same(outputs(small(qk_scale=2.0).eval(), x), outputs(small().eval(), x))
    heads_of_four = {"embed_dim": 4, "num_heads": [1, 2, 4, 8]}
    explicit, usual = small(qk_scale=0.5, **heads_of_four), small(**heads_of_four)
    assert same(outputs(explicit.eval(), x), outputs(usual.eval(), x))


def test_keys_reach_the_network() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    node = cfg.MODEL.SWIN
    node.EMBED_DIM, node.DEPTHS, node.NUM_HEADS = 12, [1, 2], [3, 6]
    node.WINDOW_SIZE, node.PATCH_SIZE, node.MLP_RATIO = 5, 8, 2.0
    node.QKV_BIAS, node.PATCH_NORM, node.APE, node.PRETRAIN_IMG_SIZE = False, False, True, 48
    node.OUT_FEATURES = ["res3"]
    model = build_backbone(cfg)
    assert {n: (s.channels, s.stride) for n, s in model.output_shape().items()} == {
        "res3": (24, 16)
    }
    names = {n: tuple(w.shape) for n, w in model.state_dict().items()}
    assert names["absolute_pos_embed"] == (1, 12, 6, 6)
    assert names["patch_embed.proj.weight"] == (12, 3, 8, 8)
    assert names["layers.1.blocks.0.mlp.fc1.weight"] == (48, 24)
    assert names["layers.0.blocks.0.attn.relative_position_bias_table"] == (81, 3)
    absent = ("patch_embed.norm.weight", "layers.0.blocks.0.attn.qkv.bias", "norm0.weight")
    assert not any(name in names for name in absent)
    maps = model(torch.randn(1, 3, 40, 40))
    assert {n: m.shape for n, m in maps.items()} == {"res3": (1, 24, 3, 3)}


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
def test_freezing(freeze_at: int) -> None:
    model = small(freeze_at=freeze_at, absolute_positions=True, drop_rate=0.5).train()
    parts = [model.patch_embed, *model.layers]
    for index, part in enumerate(parts):
        frozen = index < freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters())
        assert all(module.training != frozen for module in part.modules())
    assert model.absolute_pos_embed.requires_grad == (freeze_at == 0)
    assert model.norm3.weight.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [2, 2, 2]}, "DEPTHS names 3 stages and MODEL.SWIN.NUM_HEADS 4"),
        ({"depths": [2, 0, 2, 2]}, "1 block or more"),
        ({"num_heads": [1, 3, 2, 4]}, r"NUM_HEADS sets 3 for stage 2.*width 16.*EMBED_DIM 8"),
        ({"num_heads": [0, 2, 2, 4]}, "NUM_HEADS sets 0"),
        ({"out_features": ["res1"]}, r"names res1; choose from res2, res3, res4, res5 \(res\d\?\)"),
        ({"out_features": []}, "names nothing"),
        ({"freeze_at": 7}, "FREEZE_AT 7 must lie in 0 to 5"),
        ({"window_size": 0}, "WINDOW_SIZE is 0"),
        ({"patch_size": 0}, "PATCH_SIZE is 0"),
        ({"absolute_positions": True, "pretrain_img_size": 2}, "PRETRAIN_IMG_SIZE 2"),
        ({"drop_path_rate": 1.0}, "DROP_PATH_RATE is 1.0"),
        ({"attn_drop_rate": -0.1}, "ATTN_DROP_RATE is -0.1"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


# ---- files ------------------------------------------------------------------------------------


def published_state(model: D2SwinTransformer) -> dict[str, Tensor]:
    """What the authors' classifier of the same size would be saved as."""
    torch.manual_seed(2)
    state = {
        name: value if "index" in name else torch.randn_like(value)
        for name, value in model.state_dict().items()
        if not name.startswith("norm")
    }
    for name in ("norm.weight", "norm.bias", "head.weight", "head.bias"):
        state[name] = torch.randn(3)
    return state | {"layers.0.blocks.1.attn_mask": torch.zeros(4, 9, 9)}


@pytest.mark.parametrize("kind", ["authors", "converted", "prefixed"])
def test_files_of_the_authors(kind: str, tmp_path: Path) -> None:
    model = small()
    state = published_state(model)
    path = tmp_path / ("swin.pkl" if kind == "converted" else "swin.pth")
    if kind == "converted":
        arrays = {name: value.numpy() for name, value in state.items()}
        content = {"model": arrays, "__author__": "third_party", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content))
    else:
        prefix = "backbone." if kind == "prefixed" else ""
        torch.save({"model": {f"{prefix}{n}": w for n, w in state.items()}}, path)
    unused = model.load_pretrained(path)
    heads = {"norm.weight", "norm.bias", "head.weight", "head.bias", "layers.0.blocks.1.attn_mask"}
    assert {name.removeprefix("backbone.") for name in unused} == heads
    for name, value in model.state_dict().items():
        if not name.startswith("norm"):
            assert torch.equal(value, state[name]), name
    assert torch.equal(model.norm3.weight, torch.ones(64))


def test_positions_listed_by_cell(tmp_path: Path) -> None:
    model = small(absolute_positions=True, pretrain_img_size=16)
    listed = torch.randn(1, 16, 8)
    state = {**published_state(model), "absolute_pos_embed": listed}
    torch.save(state, tmp_path / "swin.pth")
    model.load_pretrained(tmp_path / "swin.pth")
    assert torch.equal(model.absolute_pos_embed[0, :, 1, 2], listed[0, 6])


def test_file_of_another_window(tmp_path: Path) -> None:
    torch.save(published_state(small(window_size=4)), tmp_path / "swin.pth")
    with pytest.raises(DataError, match=r"swin.pth has other shapes for .*position_bias_table"):
        small().load_pretrained(tmp_path / "swin.pth")


def test_built_from_defaults() -> None:
    with torch.device("meta"):
        model = construct(D2SwinTransformer, get_cfg())
    assert [s.channels for s in model.output_shape().values()] == [96, 192, 384, 768]
    assert model.size_divisibility == 32
