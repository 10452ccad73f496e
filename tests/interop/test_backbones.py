"""detectron2's backbones in vidseg configs, against a small stand-in for detectron2."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop import fake_package
from tests.interop.real import small_cfg
from vidseg.config import load_config
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_backbone, build_model

STAGES = ["res2", "res3", "res4", "res5"]


@pytest.fixture(autouse=True)
def _fake() -> Iterator[None]:
    with fake_package.installed():
        yield


def backbone(name: str, *overrides: Any) -> Any:
    return build_backbone(load_config(None, ["MODEL.BACKBONE.NAME", f"d2/{name}", *overrides]))


def resnet(*overrides: Any) -> Any:
    return backbone("build_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", STAGES, *overrides)


def pyramid(*overrides: Any) -> Any:
    keys = ("MODEL.RESNETS.OUT_FEATURES", STAGES, "MODEL.FPN.IN_FEATURES", STAGES)
    return backbone("build_resnet_fpn_backbone", *keys, "MODEL.FPN.OUT_CHANNELS", 6, *overrides)


def test_maps_come_finest_first_and_weights_keep_their_names() -> None:
    model = resnet()
    maps = model(torch.randn(2, 3, 64, 96))
    assert list(maps) == list(model.output_shape()) == STAGES
    for name, shape in model.output_shape().items():
        assert maps[name].shape == (2, shape.channels, 64 // shape.stride, 96 // shape.stride)
    assert "res2.weight" in model.state_dict()
    assert sorted(n for n, _ in model.named_parameters()) == sorted(
        n for n, _ in model.wrapped.named_parameters()
    )


def test_modes_and_copies_are_those_of_the_network() -> None:
    model = resnet().train()
    assert model.training
    assert model.wrapped.training
    assert not model.wrapped.frozen.training
    assert not model.eval().wrapped.training
    other = copy.deepcopy(model)
    other.wrapped.res2.weight.data.fill_(7)
    assert other.state_dict()["res2.weight"].eq(7).all()
    assert not model.state_dict()["res2.weight"].eq(7).any()
    assert model.double().wrapped.res2.weight.dtype == torch.float64


def test_a_pyramid_tells_its_names_and_padding() -> None:
    model = pyramid("MODEL.FPN.FUSE_TYPE", "avg", "MODEL.FPN.NORM", "GN")
    assert {name: (s.channels, s.stride) for name, s in model.output_shape().items()} == {
        "p2": (6, 4),
        "p3": (6, 8),
        "p4": (6, 16),
        "p5": (6, 32),
    }
    assert model.size_divisibility == 32
    assert (model.wrapped.fuse_type, model.wrapped.norm) == ("avg", "GN")


@pytest.mark.parametrize(
    ("name", "node", "keys"),
    [("SwinTransformer", "SWIN", "p0 p1 p2 p3"), ("MViT", "MVIT", "scale2 scale3 scale4 scale5")],
)
def test_hierarchies_have_vidsegs_names(name: str, node: str, keys: str) -> None:
    model = backbone(name, f"MODEL.{node}.EMBED_DIM", 8)
    assert list(model(torch.randn(1, 3, 64, 64))) == STAGES
    assert [key for key, _ in model.named_children() if key in keys.split()] == keys.split()
    assert model.wrapped.options["embed_dim"] == 8
    joined = backbone(name, "MODEL.FPN.IN_FEATURES", STAGES[1:], "MODEL.FPN.OUT_CHANNELS", 6)
    assert list(joined.output_shape()) == ["p3", "p4", "p5"]
    with pytest.raises(ConfigError, match=f"names res6, which d2/{name} does not give; choose"):
        backbone(name, "MODEL.FPN.IN_FEATURES", ["res6"])
    with pytest.raises(ConfigError, match=rf"MODEL.{node}.OUT_FEATURES names p1; choose from res2"):
        backbone(name, f"MODEL.{node}.OUT_FEATURES", ["p1"])


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, -1), (1, 1), (2, 2)])
def test_swin_reads_the_keys_of_ours(freeze_at: int, frozen: int) -> None:
    keys = {
        "PRETRAIN_IMG_SIZE": ("pretrain_img_size", 64),
        "DEPTHS": ("depths", [1, 2, 3, 4]),
        "NUM_HEADS": ("num_heads", [1, 1, 2, 2]),
        "WINDOW_SIZE": ("window_size", 5),
        "MLP_RATIO": ("mlp_ratio", 2.0),
        "QKV_BIAS": ("qkv_bias", False),
        "QK_SCALE": ("qk_scale", 0.5),
        "DROP_RATE": ("drop_rate", 0.1),
        "ATTN_DROP_RATE": ("attn_drop_rate", 0.2),
        "DROP_PATH_RATE": ("drop_path_rate", 0.25),
        "APE": ("ape", True),
        "PATCH_NORM": ("patch_norm", False),
        "USE_CHECKPOINT": ("use_checkpoint", True),
        "OUT_FEATURES": ("out_indices", [1, 3]),
    }
    words: list[Any] = ["MODEL.BACKBONE.FREEZE_AT", freeze_at]
    for key, (_, value) in keys.items():
        words += [f"MODEL.SWIN.{key}", ["res3", "res5"] if key == "OUT_FEATURES" else value]
    options = backbone("SwinTransformer", *words).wrapped.options
    assert {option: options[option] for option, _ in keys.values()} == dict(keys.values())
    assert options["frozen_stages"] == frozen


def test_vit_and_its_pyramid_read_their_keys() -> None:
    keys = {
        "IMG_SIZE": 64,
        "PATCH_SIZE": 8,
        "EMBED_DIM": 12,
        "DEPTH": 2,
        "NUM_HEADS": 3,
        "DROP_PATH_RATE": 0.25,
        "WINDOW_SIZE": 4,
        "WINDOW_BLOCK_INDEXES": [1],
        "USE_REL_POS": False,
        "PRETRAIN_IMG_SIZE": 32,
    }
    words = [word for key, value in keys.items() for word in (f"MODEL.VIT.{key}", value)]
    vit = backbone("ViT", *words)
    options = {key: vit.wrapped.options[key.lower()] for key in keys}
    assert options == {**keys, "WINDOW_BLOCK_INDEXES": (1,)}
    assert list(vit.output_shape()) == ["last_feat"]
    model = backbone(
        "SimpleFeaturePyramid", *words, "MODEL.VIT.NORM", "", "MODEL.FPN.OUT_CHANNELS", 9
    )
    assert model.wrapped.net.options["embed_dim"] == 12
    given = {key: model.wrapped.options[key] for key in ("norm", "out_channels", "in_feature")}
    assert given == {"norm": "", "out_channels": 9, "in_feature": "last_feat"}
    assert model.size_divisibility == 32


def test_weights_of_the_network_below_leave_the_pyramid_as_it_is(tmp_path: Path) -> None:
    below, model = resnet(), pyramid()
    lateral = model.state_dict()["fpn_lateral2.weight"].clone()
    torch.save({f"module.{k}": v for k, v in below.state_dict().items()}, tmp_path / "below.pth")
    assert model.load_pretrained(tmp_path / "below.pth") == []
    loaded = model.state_dict()
    assert all(loaded[f"bottom_up.{k}"].equal(v) for k, v in below.state_dict().items())
    assert loaded["fpn_lateral2.weight"].equal(lateral)
    with torch.no_grad():
        model.wrapped.fpn_lateral2.weight.fill_(3)
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    other = pyramid()
    assert other.load_pretrained(tmp_path / "whole.pth") == []
    assert all(v.equal(model.state_dict()[k]) for k, v in other.state_dict().items())
    torch.save({"res2.weight": torch.zeros(1)}, tmp_path / "part.pth")
    with pytest.raises(DataError, match="weights of this backbone"):
        other.load_pretrained(tmp_path / "part.pth")


def test_a_model_runs_on_it() -> None:
    cfg = small_cfg(
        MODEL__BACKBONE__NAME="d2/build_resnet_fpn_backbone",
        MODEL__RESNETS__DEPTH=50,
        MODEL__FPN__IN_FEATURES=STAGES,
        MODEL__FPN__OUT_CHANNELS=6,
        MODEL__SEM_SEG_HEAD__IN_FEATURES=["p2", "p3", "p4", "p5"],
        MODEL__SEM_SEG_HEAD__DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES=["p3", "p4", "p5"],
        MODEL__MASK_FORMER__SIZE_DIVISIBILITY=-1,
    )
    model = build_model(cfg).eval()
    assert model.size_divisibility == 32
    frames = torch.randint(0, 255, (2, 3, 40, 50), dtype=torch.uint8)
    found = model([{"frames": frames, "height": 40, "width": 50}])[0]
    assert found.image_size == (40, 50)
    names = [name for name in model.state_dict() if name.startswith("backbone.")]
    assert "backbone.bottom_up.res2.weight" in names
    assert "backbone.fpn_lateral2.weight" in names


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("build_resnet_fpn_backbone", [], "MODEL.FPN.IN_FEATURES, which is empty; set it and"),
        (
            "build_resnet_fpn_backbone",
            ["MODEL.FPN.IN_FEATURES", ["res3", "res4"]],
            r"names res3, which are not among MODEL.RESNETS.OUT_FEATURES \(res4\)",
        ),
        (
            "build_resnet_backbone",
            ["MODEL.RESNETS.DEPTH", 18],
            r"d2/build_resnet_backbone: detectron2 refuses the config \(AssertionError: an unknown",
        ),
        ("SwinTransformer", ["MODEL.SWIN.PATCH_SIZE", 2], "PATCH_SIZE is 2, but .* set it to 4"),
    ],
)
def test_configs_that_cannot_be_built(name: str, overrides: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        backbone(name, *overrides)
