"""Frozen backbones as encoder and as target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from vidseg.config import CfgNode, load_config
from vidseg.engine.build import build_initial_model
from vidseg.errors import ConfigError
from vidseg.modeling.backbone import TorchvisionBackbone
from vidseg.projects.slot_bert.features import FeatureCache, FrozenFeatures

CHECKOUT = Path(__file__).resolve().parents[3]
NETWORK = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    torch.save(torchvision.models.get_model(NETWORK, weights=None).state_dict(), file)
    return file


def config(weights: Path | str, **values: Any) -> CfgNode:
    options: list[Any] = ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", False]
    options += ["MODEL.BACKBONE.NAME", f"torchvision/{NETWORK}"]
    options += ["MODEL.BACKBONE.WEIGHTS", str(weights)]
    settings = {
        "ENCODER.NAME": "backbone",
        "ATTENTION.SLOT_DIM": 16,
        "DECODER.NAME": "mlp",
        "DECODER.SIZE": 8,
        "LOSS.FEATURES": 1.0,
        "LOSS.FEATURE_APPEARANCE": 1.0,
        **values,
    }
    for key, value in settings.items():
        options += [f"MODEL.SLOT_BERT.{key}", value]
    return load_config(CHECKOUT / "projects" / "slot_bert" / "phase1.yaml", options)


def features(weights: Path, maps: tuple[str, ...] = ("res4",), **arguments: Any) -> FrozenFeatures:
    result = FrozenFeatures(TorchvisionBackbone(NETWORK), maps, **arguments)
    result.load_pretrained(weights)
    return result


def frames(count: int = 3, height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def samples(seed: int = 0) -> list[dict[str, Any]]:
    return [
        {"frames": frames(2, 40, 50, seed + i), "video_id": i, "iteration": 1, "max_iter": 9}
        for i in range(2)
    ]


def test_is_what_the_backbone_gives(weights: Path) -> None:
    frozen = features(weights).eval()
    plain = TorchvisionBackbone(NETWORK).eval()
    plain.load_pretrained(weights)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad():
        want = plain((255 * frames() - mean) / std)["res4"]
    scale = (1 + frozen.norm.eps) ** -0.5  # nothing was gathered yet
    torch.testing.assert_close(frozen(frames()), want * scale, atol=1e-4, rtol=1e-4)


def test_learns_nothing_and_takes_no_gradient(weights: Path) -> None:
    frozen = features(weights).train()
    before = {name: value.clone() for name, value in frozen.network.state_dict().items()}
    assert not frozen(frames()).requires_grad
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(module.training for module in frozen.network.modules())
    for name, value in frozen.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_maps_count_alike(weights: Path) -> None:
    frozen = features(weights, ("res3", "res4", "res5")).train()
    frozen.norm.eps = 1e-30  # without training activations are faint
    out = frozen(frames(8))  # one batch: its own statistics
    counts = [frozen.network.output_shape()[name].channels for name in frozen.maps]
    assert out.shape == (8, sum(counts), 8, 12)
    shares = [part.square().mean((0, 2, 3)).sum() for part in out.split(counts, 1)]
    for share in shares:
        assert float(share) == pytest.approx(sum(counts) / 3, rel=0.01)
    assert float(out.mean((0, 2, 3)).abs().max()) < 1e-4


def test_statistics_settle_and_stay_in_evaluation(weights: Path) -> None:
    frozen = features(weights).train()
    for seed in range(3):
        frozen(frames(seed=seed))
    assert int(frozen.norm.num_batches_tracked) == 3
    frozen.eval()
    assert torch.equal(frozen(frames()), frozen(frames()))
    assert int(frozen.norm.num_batches_tracked) == 3


@pytest.mark.parametrize(("scale", "stride"), [(1.0, 16), (2.0, 8), (0.5, 32)])
def test_scale_sets_the_grid(weights: Path, scale: float, stride: int) -> None:
    frozen = features(weights, ("res4", "res5"), scale=scale).eval()
    assert (frozen.stride, frozen.divisor) == (stride, 2 * stride)
    assert frozen(frames(2, 64, 128)).shape[2:] == (64 // stride, 128 // stride)


@pytest.mark.parametrize("stride", [8, 16, 32, 64])
def test_maps_are_resized_to_the_grid(weights: Path, stride: int) -> None:
    frozen = features(weights, ("res3", "res4", "res5"), stride=stride).eval()
    assert frozen.divisor == max(stride, 32)
    assert frozen(frames(2, 64, 128)).shape[2:] == (64 // stride, 128 // stride)


def test_a_linear_map_before_the_tokens_learns(weights: Path) -> None:
    frozen = features(weights, dim=5).train()
    out = frozen(frames())
    assert out.shape[1] == frozen.out_channels == 5
    assert frozen.targets(frames()).shape[1] == frozen.target_channels != 5
    out.square().mean().backward()
    assert frozen.proj.weight.grad is not None
    assert int(frozen.norm.num_batches_tracked) == 1  # the same frames were at hand


def test_cached_features_are_the_same(weights: Path) -> None:
    plain, cached = features(weights).train(), features(weights, cache_bytes=2**20).train()
    assert cached.cache is not None
    runs: list[int] = []
    cached.network.register_forward_hook(lambda *_: runs.append(1))
    for seed in (0, 1, 0):
        want = plain(frames(seed=seed))
        torch.testing.assert_close(cached(frames(seed=seed)), want, atol=1e-5, rtol=1e-4)
    assert len(runs) == len(cached.cache) == 6  # a frame at a time, and none twice
    cached.eval()(frames(seed=5))
    assert len(cached.cache) == 6


def test_cache_forgets_the_oldest() -> None:
    cache = FeatureCache(max_bytes=8)
    a, b, c = (FeatureCache.key(x) for x in (torch.zeros(2), torch.zeros(1, 2), torch.ones(2)))
    assert len({a, b, c, FeatureCache.key(torch.zeros(2, dtype=torch.int32))}) == 4
    cache.put(a, torch.zeros(1))
    cache.put(b, torch.ones(1))
    assert cache.get(a) is not None  # so b is now the oldest
    cache.put(c, torch.zeros(1))
    assert cache.get(b) is None
    assert cache.get(a) is not None
    cache.put(b, torch.zeros(9))  # larger than everything
    assert cache.num_bytes == 8
    assert cache.get(b) is None


@pytest.mark.parametrize("encoder", ["backbone", "conv"])
def test_slots_learn_from_features(weights: Path, encoder: str) -> None:
    cfg = config(weights, **{"ENCODER.NAME": encoder, "LOSS.RECONSTRUCTION": 0.0})
    model: Any = build_initial_model(cfg).train()
    losses = model(samples())
    terms = {name: value for name, value in losses.items() if "/" not in name}
    assert set(terms) == {"loss_features", "loss_feature_appearance"}
    sum(terms.values()).backward()
    learning = list(model.perception.attention.parameters())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in learning)
    frozen = getattr(model.backbone, "features", model.backbone)
    assert all(p.grad is None for p in frozen.network.parameters())
    prediction = model.eval()(samples())[0]
    assert prediction["rgb_slots"].shape == (2, 7, 3, 8, 8)
    assert prediction["reconstruction"].shape == (2, 3, 8, 8)
    assert prediction["segmentation"].shape == (2, 40, 50)


def test_features_are_explained_better_with_training(weights: Path) -> None:
    torch.manual_seed(0)
    model: Any = build_initial_model(config(weights)).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    values = []
    for _ in range(30):
        losses = model(samples())
        values.append(float(losses["unweighted/features"]))
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if "/" not in name).backward()
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


def test_a_checkpoint_brings_the_network_along(weights: Path, tmp_path: Path) -> None:
    model: Any = build_initial_model(config(weights)).train()
    model(samples())
    file = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, file)
    again: Any = build_initial_model(config(""), file).eval()
    a, b = model.eval()(samples())[0], again(samples())[0]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_random_weights_are_refused(weights: Path) -> None:
    model = build_initial_model(config("")).eval()
    with pytest.raises(ConfigError, match=r"MODEL\.BACKBONE\.WEIGHTS is empty"):
        model(samples())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ENCODER.NAME": "backbones"}, "ENCODER.NAME is 'backbones'; nearest: backbone"),
        ({"FEATURES.MAPS": ["res6"]}, "FEATURES.MAPS names 'res6'.* nearest: res"),
        ({"FEATURES.MAPS": []}, "MAPS is empty"),
        ({"FEATURES.SCALE": 0.0}, "SCALE is 0.0"),
        ({"FEATURES.SCALE": 1.5}, r"SCALE is 1.5; the strides \[16\]"),
        ({"FEATURES.STRIDE": 24}, "STRIDE is 24; it must divide .* 16"),
        ({"FEATURES.STRIDE": -1}, "FEATURES.STRIDE is -1"),
        ({"FEATURES.CACHE": -1}, "FEATURES.CACHE is -1"),
        ({"FEATURES.DIM": -1}, "FEATURES.DIM is -1"),
    ],
)
def test_wrong_settings(weights: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_initial_model(config(weights, **values))
