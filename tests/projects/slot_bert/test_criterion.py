"""Which losses count when, and where their gradients go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError
from vidseg.projects.slot_bert import add_config, criterion
from vidseg.projects.slot_bert.composition import COMPOSITIONS, compose, resize_maps
from vidseg.projects.slot_bert.criterion import LOSSES, SlotCriterion, SlotOutputs
from vidseg.projects.slot_bert.decoders import PixelMLPDecoder
from vidseg.projects.slot_bert.positions import cell_centres
from vidseg.projects.slot_bert.slot_attention import SlotAttention

B, T, K, WIDTH, SIZE = 2, 3, 4, 8, 16
_FUNCTIONS = {
    "ORTHOGONALITY": "orthogonality_loss",
    "ENTROPY": "entropy_loss",
    "COVERAGE": "coverage_loss",
    "APPEARANCE": "appearance_loss",
    "FEATURE_APPEARANCE": "appearance_loss",
    "RECONSTRUCTION": "compose",
    "FEATURES": "compose",
    "DISTILLATION": "distillation_loss",
    "MASKED_SLOTS": "masked_slot_loss",
    "TIME_CONTRAST": "time_contrast",
    "FRAME_CONTRAST": "frame_contrast",
}


def cfg_of(**values: Any) -> CfgNode:
    cfg = get_cfg()
    add_config(cfg)
    for name, value in values.items():
        node = cfg.MODEL.SLOT_BERT
        (node if name in node else node.LOSS)[name] = value
    return cfg


def outputs_of(*, index: torch.Tensor | None = None, num_features: int = 0) -> SlotOutputs:
    positions = (SIZE, SIZE) if index is None else (len(index),)
    slots = torch.randn(B, T, K, WIDTH, requires_grad=True)
    return SlotOutputs(
        slots,
        slots + 0.1,
        torch.randn(B, T, K, 4, 6, requires_grad=True).softmax(2),
        torch.randn(B * T, K, 3 + num_features, *positions, requires_grad=True),
        torch.randn(B * T, K, *positions, requires_grad=True),
        SIZE,
        index,
        torch.rand(B, T, K) < 0.3,
        torch.randn(B, T, num_features, 5, 5) if num_features else None,
    )


VIDEO = torch.rand(B, T, 3, 32, 48)


def test_published_phase_one_is_the_squared_error_alone() -> None:
    outputs = outputs_of()
    outputs.hidden = None
    losses, figures = SlotCriterion.from_config(cfg_of())(outputs, VIDEO, 0.0)
    attn = resize_maps(outputs.attn.flatten(0, 1), (SIZE, SIZE))
    target = F.interpolate(VIDEO.flatten(0, 1), (SIZE, SIZE), mode="area")
    expected = F.mse_loss(compose(outputs.rgb, attn), target)
    assert list(losses) == ["loss_reconstruction"]
    torch.testing.assert_close(losses["loss_reconstruction"], expected)
    assert set(figures) == {"unweighted/reconstruction", "weight/reconstruction"}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_no_weight_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("was computed")

    kept = _FUNCTIONS[name]
    for function in {*_FUNCTIONS.values()} - {kept}:
        monkeypatch.setattr(criterion, function, refuse)
    cfg = cfg_of(RECONSTRUCTION=0.0)
    cfg.MODEL.SLOT_BERT.LOSS[name] = 0.5
    outputs = outputs_of(num_features=2)
    own = SlotCriterion.from_config(cfg)
    if not own.draws(0.0):
        outputs.rgb = outputs.logits = None
    if not own.uses_features:
        outputs.features = None
    losses, figures = own(outputs, VIDEO, 0.0)
    key = name.lower()
    assert list(losses) == [f"loss_{key}"]
    assert losses[f"loss_{key}"].requires_grad
    torch.testing.assert_close(losses[f"loss_{key}"], 0.5 * figures[f"unweighted/{key}"])
    assert figures[f"weight/{key}"] == 0.5
    assert not any(value.requires_grad for value in figures.values())


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_losses_are_computed_in_full_precision(composition: str) -> None:
    outputs = outputs_of(num_features=2)
    own = SlotCriterion(dict.fromkeys(LOSSES, 1.0), compose=composition, pos_weight=0.2)
    expected, _ = own(outputs, VIDEO, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = own(outputs, VIDEO, 0.0)
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], atol=0, rtol=1e-6)


def test_weights_follow_the_run() -> None:
    ramps = [["APPEARANCE", 0.0, 0.5, 0.0, 1.0], ["RECONSTRUCTION", 0.2, 0.2, 0.0, 2.0]]
    own = SlotCriterion.from_config(cfg_of(SCHEDULE=ramps))
    outputs = outputs_of()
    assert [own.draws(progress) for progress in (0.0, 0.1, 0.2, 1.0)] == [False, False, True, True]
    idle, _ = own(outputs, VIDEO, 0.0)
    assert list(idle) == ["loss_idle"]
    assert idle["loss_idle"] == 0
    assert idle["loss_idle"].requires_grad
    early, figures = own(outputs, VIDEO, 0.25)
    assert figures["weight/appearance"] == 0.5
    late, _ = own(outputs, VIDEO, 0.5)
    torch.testing.assert_close(late["loss_appearance"], 2 * early["loss_appearance"])
    torch.testing.assert_close(late["loss_reconstruction"], early["loss_reconstruction"])


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_part_of_the_pixels_is_compared_with_those_pixels(composition: str) -> None:
    index = torch.tensor([0, 5, 100, 255])
    whole = outputs_of(num_features=2)
    some = SlotOutputs(**vars(whole))
    some.rgb, some.logits = (x.flatten(-2)[..., index] for x in (whole.rgb, whole.logits))
    some.index = index
    own = SlotCriterion({"RECONSTRUCTION": 1.0, "FEATURES": 1.0}, compose=composition)
    parts, _ = own(some, VIDEO, 0.0)
    # By hand, from the maps of the whole.
    target = resize_maps(VIDEO.flatten(0, 1), (SIZE, SIZE)).flatten(-2)[..., index]
    decoded = whole.logits.softmax(1).flatten(-2)[..., index]
    attn = resize_maps(whole.attn.flatten(0, 1), (SIZE, SIZE)).flatten(-2)[..., index]
    attn = torch.where(whole.hidden.any(-1).flatten()[:, None, None], decoded, attn)
    rgb = some.rgb[:, :, :3]
    by_attn = F.mse_loss(compose(rgb, attn), target)
    by_decoder = F.mse_loss(compose(rgb, decoded), target)
    expected = {"attn": by_attn, "decoder": by_decoder, "both": by_decoder + 0.3 * by_attn}
    torch.testing.assert_close(parts["loss_reconstruction"], expected[composition])
    target = resize_maps(whole.features.flatten(0, 1), (SIZE, SIZE)).flatten(-2)[..., index]
    by_attn = F.mse_loss(compose(some.rgb[:, :, 3:], attn), target)
    by_decoder = F.mse_loss(compose(some.rgb[:, :, 3:], decoded), target)
    expected = {"attn": by_attn, "decoder": by_decoder, "both": by_decoder + 0.3 * by_attn}
    torch.testing.assert_close(parts["loss_features"], expected[composition])


def test_attention_of_hidden_frames_does_not_reach_the_reconstruction() -> None:
    outputs = outputs_of()
    outputs.hidden = torch.zeros(B, T, K, dtype=torch.bool)
    outputs.hidden[0, 1, 2] = True  # a single slot hides the frame: attention tells of all of them
    outputs.attn.retain_grad()
    losses, _ = SlotCriterion({"RECONSTRUCTION": 1.0})(outputs, VIDEO, 0.0)
    losses["loss_reconstruction"].backward()
    per_frame = outputs.attn.grad.abs().sum((2, 3, 4))
    assert per_frame[0, 1] == 0
    assert (per_frame > 0).sum() == B * T - 1


@pytest.mark.parametrize("detached", [False, True])
def test_the_reconstruction_trains_queries_and_keys_unless_detached(detached: bool) -> None:
    attention = SlotAttention(WIDTH, WIDTH)
    decoder = PixelMLPDecoder(WIDTH, size=SIZE, hidden_dim=8)
    keys, values = attention.keys_values(torch.randn(B * T, 24, WIDTH))
    slots, attn = attention(keys, values, torch.randn(B * T, K, WIDTH))
    rgb, logits = decoder(slots.detach())  # so that only the masks carry a gradient
    slots = slots.unflatten(0, (B, T))
    maps = attn.unflatten(-1, (4, 6)).unflatten(0, (B, T))
    outputs = SlotOutputs(slots, slots, maps, rgb, logits, SIZE)
    own = SlotCriterion.from_config(cfg_of(DETACH_DECODER=detached))
    own(outputs, VIDEO, 0.0)[0]["loss_reconstruction"].backward()
    queries, keys = attention.to_q.weight.grad, attention.to_kv.weight.grad
    if detached:
        assert queries is None
        assert keys is None
    else:
        assert queries.abs().sum() > 0
        assert keys[:WIDTH].abs().sum() > 0
    assert decoder.head.weight.grad.abs().sum() > 0


def test_positions_part_what_looks_alike() -> None:
    """Two objects of one colour: only positions tell one mask for both from one for each."""
    masks = torch.zeros(2, 1, 1, 3, 8, 8)
    for mask, (first, second) in zip(masks, ((1, 1), (1, 2)), strict=True):
        mask[..., first, :2, :2] = mask[..., second, 6:, 6:] = 1
        mask[..., 0, :, :] = 1 - mask[0, 0, 1:].sum(0)
    video = torch.zeros(1, 1, 3, 8, 8)
    video[..., :2, :2] = video[..., 6:, 6:] = 1.0

    def loss_of(mask: torch.Tensor, weight: float) -> float:
        outputs = SlotOutputs(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), mask)
        own = SlotCriterion({"APPEARANCE": 1.0}, pos_weight=weight)
        return own(outputs, video, 0.0)[0]["loss_appearance"].item()

    together, apart = masks
    assert loss_of(together, 0.0) == pytest.approx(loss_of(apart, 0.0), abs=1e-6)
    gain = loss_of(together, 0.2) - loss_of(apart, 0.2)
    # Two corners, centres 1.5 apart on each axis: 8 of 64 pixels, each 0.75 per axis from the mean.
    assert gain == pytest.approx(0.2**2 * 8 / 64 * 2 * 0.75**2, rel=1e-4)


def test_the_recipe_of_luma_background_and_a_growing_weight_of_positions() -> None:
    cfg = cfg_of(
        RECONSTRUCTION=0.0,
        APPEARANCE=10.0,
        SCOPE="clip",
        LUMA=0.3,
        BACKGROUND=0.15,
        SCHEDULE=[["POS_WEIGHT", 0.0, 1.0, 0.0, 0.6]],
    )
    cfg.MODEL.SLOT_BERT.ATTENTION.INIT = "learned"
    own = SlotCriterion.from_config(cfg)
    outputs = outputs_of()
    losses, figures = own(outputs, VIDEO, 0.5)
    assert figures["weight/pos_weight"] == pytest.approx(0.3)
    assert set(losses) == {"loss_appearance"}
    rgb = resize_maps(VIDEO, (4, 6)).flatten(-2)
    luma = rgb.mean(2, keepdim=True)
    masks, colours = outputs.attn.flatten(-2), rgb - luma + 0.3 * luma
    places = cell_centres(4, 6)
    total = colours.square().sum()
    for b in range(B):
        for k in range(K):
            m = masks[b, :, k]
            mean = (m[:, None] * colours[b]).sum((0, 2))
            total = total - mean.square().sum() / (m.sum() + 1e-6)
            for frame in m:
                spread = frame @ places.square().sum(1)
                spread = spread - (frame @ places).square().sum() / (frame.sum() + 1e-6)
                total = total + 0.3**2 * (spread if k else 0.15 * frame.sum())
    expected = 10 * total / (B * T * 24)
    torch.testing.assert_close(losses["loss_appearance"], expected, atol=1e-4, rtol=1e-4)
    assert "weight/pos_weight" not in own(outputs, VIDEO, 0.0)[1]


@pytest.mark.parametrize("name", ["ENTROPY", "COVERAGE", "APPEARANCE", "FEATURE_APPEARANCE"])
def test_masks_of_the_decoder_can_be_trained_in_the_place_of_attention(name: str) -> None:
    index = torch.arange(0, SIZE * SIZE, 4)
    outputs = outputs_of(index=index, num_features=2)
    outputs.attn.retain_grad()
    outputs.logits.retain_grad()
    own = SlotCriterion({name: 1.0}, masks="decoder", pos_weight=0.1)
    assert own.draws(0.0)
    losses, _ = own(outputs, VIDEO, 0.0)
    losses[f"loss_{name.lower()}"].backward()
    assert outputs.attn.grad is None
    assert outputs.logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"COMPOSE": "atn"}, "'atn' is none of attn, decoder, both"),
        ({"MASKS": "slots"}, "'slots' is none of attn, decoder"),
        ({"SCOPE": "video"}, "'video' is none of frame, clip"),
        ({"ENTROPY": -0.1}, "ENTROPY is negative"),
        ({"RECONSTRUCTION": 0.0}, "every weight is 0; set one of RECONSTRUCTION"),
        ({"LUMA": -0.1}, "LUMA -0.1"),
        ({"BACKGROUND": 0.1}, "ATTENTION.INIT random any slot may be the first; set INIT learned"),
        ({"POS_WEIGHT": -0.1}, "POS_WEIGHT is negative"),
        ({"SCHEDULE": [["APPEARENCE", 0, 1, 0, 1]]}, "nearest: APPEARANCE"),
        ({"MASKS": "decoder", "DETACH_DECODER": True, "ENTROPY": 0.1}, "DETACH_DECODER"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SlotCriterion.from_config(cfg_of(**values))
