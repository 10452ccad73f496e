"""Blobs as tokens, and the networks that look at their patches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.projects.persistence.token_samples import PATCH, build, config, detections, sample
from vidseg.engine.build import build_initial_model
from vidseg.modeling import build_model
from vidseg.projects.persistence.patch_encoder import BackbonePatchEncoder, ConvPatchEncoder
from vidseg.projects.persistence.tokenizer import ObjectTokenizer, sinusoidal_code


def tokenizer(**settings: object) -> ObjectTokenizer:
    torch.manual_seed(0)
    return ObjectTokenizer(ConvPatchEncoder(16), 16, **settings)  # type: ignore[arg-type]


def test_tokens_are_laid_out_clip_by_clip() -> None:
    first, second = sample(1), sample(4, 1)
    empty = sample(0)
    given = [first, empty, second]
    tokens = tokenizer()([s["detections"] for s in given], [s["patches"] for s in given])
    lengths = [len(s["detections"]) for s in given]
    assert tokens.lengths == lengths
    assert tokens.tokens.shape == (3, max(lengths), 16)
    assert not tokens.tokens[tokens.padding_mask].any()
    for row, one in enumerate(given):
        found = one["detections"]
        own = slice(0, len(found))
        assert torch.equal(tokens.frame_index[row, own], found.frame)
        torch.testing.assert_close(tokens.centers[row, own], found.centers)
        torch.testing.assert_close(tokens.radii[row, own], found.radius)
    nothing = tokenizer()([empty["detections"]], [empty["patches"]])
    assert nothing.tokens.shape == (1, 1, 16)
    assert nothing.padding_mask.all()


@pytest.mark.parametrize("name", ["y", "x", "frame", "sigma", "confidence", "patches"])
def test_a_token_tells_look_place_time_and_size(name: str) -> None:
    one = sample(1)
    found, patches = one["detections"], one["patches"]
    if name == "patches":
        other = (found, 255 - patches)
    else:
        step = 0.1 if name == "confidence" else 1
        other = (replace(found, **{name: getattr(found, name) + step}), patches)
    model = tokenizer()
    difference = model([found], [patches]).tokens - model([other[0]], [other[1]]).tokens
    assert (difference[0].norm(dim=-1) > 1e-3).all()


def test_codes_tell_neighbours_apart_over_the_whole_range() -> None:
    code = sinusoidal_code(torch.arange(600), 32)
    assert code.shape == (600, 32)
    apart = torch.cdist(code, code) + 10 * torch.eye(600)
    assert apart.min() > 0.5


def test_options_without_a_place_leave_it_out() -> None:
    found, _ = detections(2)
    patches = torch.zeros(len(found), 3, PATCH, PATCH, dtype=torch.uint8)
    moved = replace(found, y=found.y + 7)
    later = replace(found, frame=found.frame + 3, num_frames=found.num_frames + 3)
    for other, settings in ((moved, {"position": "none"}), (later, {"time": "none"})):
        model = tokenizer(**settings)
        assert torch.equal(model([found], [patches]).tokens, model([other], [patches]).tokens)


def test_a_learned_time_code_has_an_end() -> None:
    found, _ = detections(2)
    patches = torch.zeros(len(found), 3, PATCH, PATCH, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"8 frames are more than the 7 .* MAX_FRAMES"):
        tokenizer(time="learned", max_frames=7)([found], [patches])
    assert tokenizer(time="learned", max_frames=8)([found], [patches]).tokens.isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    found, _ = detections(2)
    with pytest.raises(ValueError, match=r"detections cannot have 1 patches"):
        tokenizer()([found], [torch.zeros(1, 3, PATCH, PATCH, dtype=torch.uint8)])
    with pytest.raises(ValueError, match="sinusoidal, learned, none"):
        tokenizer(time="cosine")
    with pytest.raises(ValueError, match="absolute, none"):
        tokenizer(position="relative")


@pytest.mark.parametrize(
    "name", ["resnet18", "torchvision/mobilenet_v3_small", "timm/mobilenetv3_small_050"]
)
def test_any_backbone_can_look_at_patches(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    model = build(ENCODER=name)
    encoder = model.tokenizer.encoder
    assert isinstance(encoder, BackbonePatchEncoder)
    patches = sample(2)["patches"]
    whole = encoder(patches)
    assert whole.shape == (len(patches), 32)
    torch.testing.assert_close(encoder(patches[:3]), whole[:3], atol=1e-5, rtol=1e-4)
    assert encoder(patches[:0]).shape == (0, 32)
    model.train()
    for num in (0, 1, 2):
        encoder(patches[:num]).sum().backward()
        assert all(p.grad is not None for p in encoder.parameters())


def test_a_frozen_backbone_stays_as_it_is() -> None:
    cfg = config(ENCODER="resnet18", FREEZE_ENCODER=True)
    model = build_model(cfg).train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    torch.stack(list(model([sample(2)]).values())).sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(torch.equal(before[n], v) for n, v in model.backbone.state_dict().items())
    assert model.tokenizer.encoder.proj.weight.grad is not None


def test_a_backbone_takes_its_weights_from_disk(tmp_path: Path) -> None:
    source = build(ENCODER="resnet18").backbone
    assert source is not None
    for parameter in source.parameters():
        torch.nn.init.constant_(parameter, 0.25)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    cfg = config(ENCODER="resnet18")
    cfg.MODEL.BACKBONE.WEIGHTS = str(tmp_path / "weights.pth")
    loaded = build_initial_model(cfg).backbone
    assert isinstance(loaded, torch.nn.Module)
    assert all((parameter == 0.25).all() for parameter in loaded.parameters())


def test_channels_come_in_the_order_that_the_weights_expect() -> None:
    rgb = build(ENCODER="resnet18").tokenizer.encoder
    cfg = config(ENCODER="resnet18")
    cfg.INPUT.FORMAT = "RGB" if cfg.INPUT.FORMAT == "BGR" else "BGR"
    torch.manual_seed(0)
    bgr = build_model(cfg).eval().tokenizer.encoder
    mean = torch.full_like(rgb.pixel_mean, 100.0)
    rgb.pixel_mean = bgr.pixel_mean = mean
    patches = sample(1)["patches"]
    torch.testing.assert_close(rgb(patches), bgr(patches.flip(1)))
