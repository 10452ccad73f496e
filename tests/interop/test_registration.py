"""Names in the registries of both worlds, against a small stand-in for detectron2."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.interop import fake_package
from tests.interop.real import small_cfg
from vidseg import plugins
from vidseg.config import get_cfg, load_config
from vidseg.errors import ConfigError, UserError
from vidseg.interop import detectron2 as d2
from vidseg.modeling import build_backbone, build_model, build_sem_seg_head
from vidseg.modeling.pixel_decoder import PixelFeatures

FEATURES = {
    f"res{i}": torch.randn(2, 8 * 2 ** (i - 2), 64 // 2**i, 64 // 2**i) for i in range(2, 6)
}


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load = plugins.load_components
    monkeypatch.setattr(plugins, "load_components", lambda: load(["dvis_daq"]))
    with fake_package.installed():
        yield


@pytest.fixture
def query_decoders() -> Iterator[Any]:
    """The registry of a system on detectron2 that was imported before."""
    from detectron2.utils.registry import Registry

    module = types.ModuleType("some_fork")
    module.TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_MODULE")  # type: ignore
    sys.modules["some_fork"] = module
    yield module.TRANSFORMER_DECODER_REGISTRY
    del sys.modules["some_fork"]


def their_cfg(**values: Any) -> Any:
    return d2.to_d2_config(small_cfg(**values))


def names_of(registry: Any) -> list[str]:
    return [name for name, _ in registry]


def test_published_names_appear_once(caplog: pytest.LogCaptureFixture) -> None:
    from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

    with caplog.at_level(logging.WARNING):
        names = d2.register()
        registered = names_of(META_ARCH_REGISTRY)
        assert d2.register() == names
    assert {"MinVIS", "DVIS_DAQ_online", "D2SwinTransformer", "MaskFormerHead"} <= set(names)
    assert names_of(META_ARCH_REGISTRY) == registered
    assert {"MSDeformAttnPixelDecoder", "MaskFormerHead"} <= set(names_of(SEM_SEG_HEADS_REGISTRY))
    assert not {"timm", "torchvision"} & set(names)
    said = [record.message for record in caplog.records if "the prefix" in record.message]
    assert said == [
        "detectron2 has build_resnet_backbone already; vidseg's have the prefix vidseg. there"
    ]


def test_a_taken_name_stays_with_its_owner_unless_asked() -> None:
    from detectron2.modeling.backbone.base import BACKBONE_REGISTRY, build_resnet_backbone

    assert "vidseg.build_resnet_backbone" in d2.register()
    assert BACKBONE_REGISTRY.get("build_resnet_backbone") is build_resnet_backbone
    assert "vidseg.build_resnet_backbone" not in d2.register(overwrite=True)
    taken = BACKBONE_REGISTRY.get("build_resnet_backbone")
    assert taken is not build_resnet_backbone
    assert taken.__name__ == "build_resnet_backbone"


def test_a_model_is_built_by_theirs() -> None:
    from detectron2.modeling import build_model as build

    d2.register()
    cfg = their_cfg(SOLVER__MAX_ITER=77)
    torch.manual_seed(3)
    model = build(cfg)
    assert isinstance(model, d2.AdaptedModel)
    torch.manual_seed(3)
    twin = build_model(small_cfg())
    assert all(torch.equal(v, twin.state_dict()[k]) for k, v in model.state_dict().items())
    frame = torch.randint(0, 255, (3, 32, 40), dtype=torch.uint8)
    assert model.eval()([{"image": [frame]}])["image_size"] == (32, 40)


@pytest.fixture
def _prefixed() -> None:
    from detectron2.modeling import META_ARCH_REGISTRY

    META_ARCH_REGISTRY._obj_map["MinVIS"] = lambda cfg: nn.Identity()  # somebody else's


@pytest.mark.usefixtures("_prefixed")
def test_parts_are_found_under_prefixed_names() -> None:
    from detectron2.modeling import build_model as build

    assert "vidseg.MinVIS" in d2.register()
    names = {
        "MODEL.META_ARCHITECTURE": "vidseg.MinVIS",
        "MODEL.BACKBONE.NAME": "vidseg.build_resnet_backbone",
        "MODEL.SEM_SEG_HEAD.NAME": "vidseg.MaskFormerHead",
    }
    cfg = their_cfg(**{key.replace(".", "__"): name for key, name in names.items()})
    assert isinstance(build(cfg), d2.AdaptedModel)
    assert cfg.MODEL.META_ARCHITECTURE == "vidseg.MinVIS"  # as it was
    assert isinstance(build(their_cfg()), nn.Identity)


def test_backbones_pass_for_theirs() -> None:
    from detectron2.modeling import FPN
    from detectron2.modeling import build_backbone as build

    d2.register()
    backbone = build(their_cfg(MODEL__BACKBONE__NAME="vidseg.build_resnet_backbone"))
    assert {name: s.stride for name, s in backbone.output_shape().items()} == {
        "res2": 4,
        "res3": 8,
        "res4": 16,
        "res5": 32,
    }
    assert backbone.padding_constraints == {}
    assert backbone.size_divisibility == 0
    maps = FPN(backbone, ["res3", "res4"], 6)(torch.randn(1, 3, 64, 64))
    assert {name: tuple(m.shape[1:]) for name, m in maps.items()} == {
        "p3": (6, 8, 8),
        "p4": (6, 4, 4),
    }


def test_heads_speak_as_systems_on_detectron2_do(query_decoders: Any) -> None:
    from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

    assert "MultiScaleMaskedTransformerDecoder" in d2.register()
    cfg = their_cfg()
    shapes = build_backbone(small_cfg()).output_shape()
    decoder = SEM_SEG_HEADS_REGISTRY.get("MSDeformAttnPixelDecoder")(cfg, shapes).eval()
    mask_features, coarsest, maps = decoder.forward_features(FEATURES)
    assert mask_features.shape == (2, 16, 16, 16)
    assert [m.shape[-1] for m in maps] == [2, 4, 8]
    assert coarsest is maps[0]

    torch.manual_seed(0)
    predictor = query_decoders.get("MultiScaleMaskedTransformerDecoder")(cfg, 16, True).eval()
    found = predictor(maps, mask_features, None)
    assert found["pred_logits"].shape == (2, 5, 2)
    assert found["pred_masks"].shape == (2, 5, 16, 16)
    assert [sorted(aux) for aux in found["aux_outputs"]] == [["pred_logits", "pred_masks"]] * 2

    head = SEM_SEG_HEADS_REGISTRY.get("MaskFormerHead")(cfg, shapes).eval()
    assert head.num_classes == 1
    output = head(FEATURES)
    ours = build_sem_seg_head(small_cfg(), shapes).eval()
    ours.load_state_dict(head.state_dict())
    torch.testing.assert_close(output["pred_masks"], ours(FEATURES).masks)


class Decoder(nn.Module):
    """A pixel decoder as Mask2Former's are called."""

    def __init__(self, cfg: Any, input_shape: dict[str, Any]) -> None:
        super().__init__()
        finest = min(input_shape.values(), key=lambda shape: shape.stride)
        self.layer = nn.Conv2d(finest.channels, cfg.MODEL.SEM_SEG_HEAD.MASK_DIM, 1)

    def forward_features(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        y = self.layer(features["res2"])
        return y, y, [y, y, y]


def test_their_pixel_decoders_serve_here() -> None:
    from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

    SEM_SEG_HEADS_REGISTRY.register(Decoder)
    SEM_SEG_HEADS_REGISTRY.register(nn.Identity)  # a head without features of its own
    cfg = small_cfg(MODEL__SEM_SEG_HEAD__PIXEL_DECODER_NAME="d2/Decoder")
    head = build_sem_seg_head(cfg, build_backbone(cfg).output_shape())
    pixels = head.pixel_decoder(FEATURES)
    assert isinstance(pixels, PixelFeatures)
    assert list(head.pixel_decoder.state_dict()) == ["layer.weight", "layer.bias"]
    assert head(FEATURES).masks.shape == (2, 5, 16, 16)
    assert d2.import_registered("SEM_SEG_HEADS") == ["d2/Decoder"]


def test_backbones_are_imported_by_name() -> None:
    names = d2.import_registered()
    assert names == [
        "d2/MViT",
        "d2/SimpleFeaturePyramid",
        "d2/SwinTransformer",
        "d2/ViT",
        "d2/build_resnet_backbone",
        "d2/build_resnet_fpn_backbone",
    ]
    d2.register()
    assert d2.import_registered() == names  # ours do not come back
    assert not [name for name in d2.register() if name.startswith("d2/")]


@pytest.mark.parametrize("key", ["META_ARCHITECTURE", "MASK_FORMER.TRANSFORMER_DECODER_NAME"])
def test_other_kinds_are_refused(key: str) -> None:
    cfg = small_cfg(**{f"MODEL__{key.replace('.', '__')}": "d2/GeneralizedRCNN"})
    with pytest.raises(ConfigError, match="cannot be imported; there are BACKBONE and SEM_SEG_HEA"):
        build_model(cfg)


def test_a_misspelt_name_finds_its_neighbour() -> None:
    cfg = load_config(None, ["MODEL.BACKBONE.NAME", "d2/build_resnt_fpn_backbone"])
    with pytest.raises(UserError, match="nearest: d2/build_resnet_fpn_backbone"):
        build_backbone(cfg)


@pytest.mark.parametrize(
    "call", [d2.register, d2.import_registered, lambda: d2.to_d2_config(get_cfg())]
)
def test_absent_it_says_how_to_get_it(
    call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match=r"detectron2 is not installed; install vidseg\[detec"):
        call()
    cfg = load_config(None, ["MODEL.BACKBONE.NAME", "d2/build_resnet_backbone"])
    with pytest.raises(UserError, match=r"BACKBONE d2/build_resnet_backbone cannot be built: dete"):
        build_backbone(cfg)


def test_public_names_exist() -> None:
    assert all(callable(getattr(d2, name)) for name in d2.__all__)
    assert set(d2.__all__) <= set(dir(d2))


def test_the_bridge_is_light_until_something_is_called() -> None:
    code = (
        "import sys; from vidseg.interop import detectron2 as d2; d2.available(); dir(d2); "
        "assert not {'torch', 'detectron2'} & set(sys.modules); "
        "[getattr(d2, name) for name in d2.__all__]; assert 'detectron2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
