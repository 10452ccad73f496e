"""ViT adapter: published numbers and names, what trains, and files of DINOv2."""

from __future__ import annotations

import gzip
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.golden_utils import apply_rule_weights, load_case
from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_backbone
from vidseg.modeling.backbone import D2VitAdapterDinoV2
from vidseg.modeling.backbone.dinov2 import DinoVisionTransformer
from vidseg.modeling.backbone.vit_adapter import VITS
from vidseg.solver import parameter_settings


def make(**options: Any) -> D2VitAdapterDinoV2:
    torch.manual_seed(0)
    vit = DinoVisionTransformer(24, 4, 3, grid_size=5)
    return D2VitAdapterDinoV2(vit, **{"num_heads": 2, "stem_channels": 4, **options})


def config(name: str = "vitb", **values: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "D2VitAdapterDinoV2"
    cfg.MODEL.VIT_ADAPTER.NAME = name
    for key, value in values.items():
        cfg.MODEL.VIT_ADAPTER[key] = value
    return cfg


@pytest.fixture
def toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VITS, "toy", {"width": 24, "depth": 4, "num_heads": 2})


# ---- numbers ----------------------------------------------------------------------------------


@torch.no_grad()
def test_published_numbers() -> None:
    case = load_case("dvis_daq/vit_adapter")
    vit = DinoVisionTransformer(48, 4, 3, grid_size=5)
    model = D2VitAdapterDinoV2(vit, num_heads=4, stem_channels=8).eval()
    assert {n: tuple(w.shape) for n, w in model.state_dict().items()} == case.names_shapes
    apply_rule_weights(model, case)
    found = model(case.inputs["a"])
    found["tokens_with_positions"] = model.vit_module.tokens(case.inputs["a"])
    found["spm_c1"], *coarser = model.spm(case.inputs["a"])
    for index, tensor in enumerate(coarser):
        found[f"spm_c{index + 2}"] = tensor.flatten(2).transpose(1, 2)
    assert set(found) == set(case.outputs)
    for name, expected in case.outputs.items():
        torch.testing.assert_close(found[name], expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", ["vitb", "vitl"])
def test_published_names(name: str) -> None:
    case = load_case("dvis_daq/vit_adapter")
    entries = json.loads(gzip.decompress((case.folder / f"{name}_state_dict.json.gz").read_bytes()))
    with torch.device("meta"):
        model = build_backbone(config(name))
    assert {n: tuple(w.shape) for n, w in model.state_dict().items()} == {
        entry: tuple(shape) for entry, shape, *_ in entries
    }
    assert {s.channels for s in model.output_shape().values()} == {VITS[name]["width"]}


@pytest.mark.parametrize("size", [(1, 1), (17, 40), (80, 80), (96, 33)])
def test_any_size(size: tuple[int, int]) -> None:
    model = make(freeze_vit=False).train()
    maps = model(torch.randn(2, 3, *size))
    for name, shape in model.output_shape().items():
        expected = [-(-side // shape.stride) for side in size]
        assert maps[name].shape == (2, shape.channels, *expected)
    sum(m.square().sum() for m in maps.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_positions_of_the_trained_grid_stay() -> None:
    vit = make().vit_module
    patches = vit.patch_embed(torch.zeros(1, 3, 80, 80)).flatten(2).transpose(1, 2)
    tokens = vit.tokens(torch.zeros(1, 3, 80, 80))
    torch.testing.assert_close(tokens[:, 1:], patches + vit.pos_embed[:, 1:])
    torch.testing.assert_close(tokens[:, :1], vit.cls_token + vit.pos_embed[:, :1])


def test_bfloat16() -> None:
    model, x = make(freeze_vit=False, use_checkpoint=True).train(), torch.randn(2, 3, 64, 96)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    sum(m.float().square().mean() for m in rough.values()).backward()
    for parameter in model.parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all()
    for name in exact:
        assert (exact[name] - rough[name]).abs().mean() < 0.05


# ---- what trains ------------------------------------------------------------------------------


def trained_blocks(model: D2VitAdapterDinoV2) -> list[int]:
    model.train()
    sum(m.square().sum() for m in model(torch.randn(2, 3, 64, 64)).values()).backward()
    blocks = enumerate(model.vit_module.blocks)
    return [i for i, block in blocks if all(p.grad is not None for p in block.parameters())]


def test_frozen_vit() -> None:
    model = make()
    assert trained_blocks(model) == []
    assert not any(p.requires_grad for p in model.vit_module.parameters())
    assert not any(part.training for part in model.frozen_parts())
    adapter = [p for n, p in model.named_parameters() if not n.startswith("vit_module.")]
    assert all(p.grad is not None for p in adapter)


@pytest.mark.parametrize("groups", [[0], [1, 3]])
def test_chosen_groups_train(groups: list[int]) -> None:
    model = make(finetune_groups=groups)
    assert trained_blocks(model) == groups  # one block per group
    for index, block in enumerate(model.vit_module.blocks):
        assert block.training == (index in groups)
        assert all(p.requires_grad == (index in groups) for p in block.parameters())
    assert model.vit_module.pos_embed.grad is None


def test_whole_vit_trains_without_freezing() -> None:
    model = make(freeze_vit=False)
    assert trained_blocks(model) == [0, 1, 2, 3]
    assert model.vit_module.pos_embed.grad is not None
    assert model.frozen_parts() == []


def test_keys_say_what_trains(toy_size: None) -> None:
    def count(**values: Any) -> int:
        model = build_backbone(config("toy", **values))
        return sum(p.numel() for p in model.vit_module.parameters() if p.requires_grad)

    block = sum(p.numel() for p in DinoVisionTransformer(24, 1, 2).blocks.parameters())
    assert count() == count(FINETUNE_INDEXES=[2]) == 0
    assert count(FINETUNE=True) == block
    assert count(FINETUNE=True, FINETUNE_INDEXES=[1, 2]) == 2 * block
    assert count(FREEZE_VIT=False) > 4 * block
    assert build_backbone(config("toy")).use_checkpoint
    assert not build_backbone(config("toy", WITH_CP=False)).use_checkpoint


def test_no_decay_of_positions() -> None:
    cfg = get_cfg()
    model = nn.ModuleDict({"backbone": make(freeze_vit=False)})
    decay = {s.name: s.weight_decay for s in parameter_settings(cfg, model)}
    assert decay["backbone.vit_module.pos_embed"] == 0
    assert decay["backbone.norm1.weight"] == decay["backbone.spm.stem.1.weight"] == 0
    assert decay["backbone.level_embed"] == cfg.SOLVER.WEIGHT_DECAY
    assert decay["backbone.vit_module.blocks.0.attn.qkv.weight"] == cfg.SOLVER.WEIGHT_DECAY


def test_recomputing_keeps_less_and_changes_no_gradient() -> None:
    x, kept, gradients = torch.randn(2, 3, 64, 64), [], []
    for use_checkpoint in (False, True):
        model = make(use_checkpoint=use_checkpoint, finetune_groups=[2]).train()
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            maps = model(x)
        sum(m.square().sum() for m in maps.values()).backward()
        kept.append(sum(sizes))
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert kept[1] < kept[0] / 2
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


# ---- files ------------------------------------------------------------------------------------


def dinov2_state(**sizes: int) -> dict[str, Tensor]:
    """What DINOv2's authors save, for patches of 14 pixels."""
    torch.manual_seed(3)
    vit = DinoVisionTransformer(**{"width": 24, "depth": 4, "num_heads": 3, **sizes}, patch_size=14)
    return {name: torch.randn_like(value) for name, value in vit.state_dict().items()}


def chunked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Blocks 0 and 1 in one chunk, 2 and 3 in the next, as the larger ones were trained."""
    for index in range(4):
        state = {
            n.replace(f"blocks.{index}.", f"blocks.{index // 2}.{index}.")
            if n.startswith(f"blocks.{index}.")
            else n: w
            for n, w in state.items()
        }
    return state


@pytest.mark.parametrize("kind", ["plain", "chunked", "prefixed", "timm"])
def test_files_of_dinov2(kind: str, tmp_path: Path) -> None:
    state = dinov2_state(grid_size=5)
    saved = chunked(state) if kind == "chunked" else dict(state)
    if kind == "prefixed":
        saved = {f"backbone.{n}": w for n, w in saved.items()}
    if kind == "timm":  # has no token for masked patches
        del saved["mask_token"]
    torch.save(saved, tmp_path / "dinov2.pth")
    model = make()
    assert model.load_pretrained(tmp_path / "dinov2.pth") == []
    kernel = state["patch_embed.proj.weight"]
    resized = F.interpolate(kernel, size=(16, 16), mode="bilinear", align_corners=True)
    assert torch.equal(model.vit_module.patch_embed.proj.weight, resized)
    for name, value in model.vit_module.state_dict().items():
        if name not in ("patch_embed.proj.weight", "mask_token"):
            assert torch.equal(value, state[name]), name


def test_file_of_the_whole_backbone(tmp_path: Path) -> None:
    source, model = make(), make()
    apply_rule_weights(source)
    torch.save(source.state_dict(), tmp_path / "backbone.pth")
    assert model.load_pretrained(tmp_path / "backbone.pth") == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(dinov2_state(grid_size=5, width=48), tmp_path / "wide.pth")
    with pytest.raises(DataError, match=r"wide.pth has other shapes.*VIT_ADAPTER.NAME"):
        make().load_pretrained(tmp_path / "wide.pth")
    state = dinov2_state(grid_size=5) | {"register_tokens": torch.zeros(1, 4, 24)}
    torch.save(state, tmp_path / "reg.pth")
    with pytest.raises(DataError, match=r"reg.pth is a DINOv2 with register tokens"):
        make().load_pretrained(tmp_path / "reg.pth")


def all_names(model: D2VitAdapterDinoV2) -> list[str]:
    return list(model.state_dict())


def test_own_file_fills_what_no_other_gave(tmp_path: Path) -> None:
    state = dinov2_state(grid_size=5)
    torch.save(state, tmp_path / "dinov2.pth")
    model = make(vit_weights=str(tmp_path / "dinov2.pth"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # A file with the ViT, or most of it, was loaded before: it stays.
    model.fill_missing(["level_embed", "vit_module.mask_token"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.fill_missing(all_names(model))
    assert torch.equal(model.vit_module.cls_token, state["cls_token"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vit_weights": "nowhere.pth"}, "nowhere.pth does not exist.*stays so"),
        ({"vit_weights": "dinov2_vitl14_pretrain.pth"}, "fetch https://.*dinov2_vitl14.*stays so"),
        ({"vit_weights": "nowhere.pth", "freeze_vit": False}, "nowhere.pth.*at random; give"),
        ({}, "is empty.*stays so"),
        ({"freeze_vit": False}, ""),  # as asked
    ],
)
def test_no_weights_are_no_secret(
    options: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(**options)
    with caplog.at_level(logging.WARNING):
        model.fill_missing(["level_embed"])
        assert not caplog.records
        model.fill_missing(all_names(model))
    if message:
        (record,) = caplog.records
        assert "MODEL.VIT_ADAPTER.VIT_WEIGHT" in record.getMessage()
        assert re.search(message, record.getMessage())
    else:
        assert not caplog.records


# ---- errors -----------------------------------------------------------------------------------


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"NAME 'vit-l' is unknown; set one of vitb, vitl \(vit"):
        build_backbone(config("vit-l"))


def test_unknown_group(toy_size: None) -> None:
    with pytest.raises(ConfigError, match=r"FINETUNE_INDEXES names 4.*0 to 3"):
        build_backbone(config("toy", FINETUNE=True, FINETUNE_INDEXES=[0, 4]))


def test_blocks_that_make_no_groups() -> None:
    with pytest.raises(ValueError, match="6 blocks do not make 4"):
        D2VitAdapterDinoV2(DinoVisionTransformer(24, 6, 3), num_heads=2)
