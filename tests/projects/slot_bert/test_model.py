"""SlotBERT as a model of vidseg: from config, samples in, losses and predictions out."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.projects.slot_bert.tiny_models import (
    ALL,
    PHASE2,
    VIDEO,
    build,
    clip,
    config_of,
    samples,
    trained,
)
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_model

LENGTHS = (1, 2, 4, 5, 6, 23, 24, 29, 50)
SUM_TO_ONE = ("attn", "masks", "decoder_masks")


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference of two predictions."""
    assert set(a) == set(b)
    assert all(a[name].shape == b[name].shape for name in a)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@ALL
def test_the_contract(settings: dict[str, Any]) -> None:
    model = trained(build(settings))
    video = torch.stack([clip(5), clip(5, seed=1)])
    out = model.infer(video)
    cells, side = 24 // model.perception.backbone.stride, model.decoder.size
    assert {name: tuple(x.shape[2:]) for name, x in out.items()} == {
        "slots": (3, 16),
        "slots_corrected": (3, 16),
        "attn": (3, cells, cells),
        "masks": (3, 24, 24),
        "rgb_slots": (3, 3, side, side),
        "decoder_masks": (3, side, side),
        "reconstruction": (3, side, side),
        "segmentation": (24, 24),
    }
    assert all(x.shape[:2] == (2, 5) for x in out.values())
    for name in SUM_TO_ONE:
        assert (out[name].sum(2) - 1).abs().max() < 1e-5
    assert torch.equal(out["segmentation"], out["masks"].argmax(2))
    assert out["segmentation"].dtype == torch.int64
    assert {x.dtype for name, x in out.items() if name != "segmentation"} == {torch.float32}
    assert torch.equal(out["slots"], out["slots_corrected"]) == (not model.use_transformer)
    assert difference(out, model.infer(video)) == 0
    assert difference(out, model.infer(video / 255)) == 0
    # A clip's result does not depend on its neighbours in the batch.
    (alone,) = model(samples(video[1]))
    assert difference({name: x[1] for name, x in out.items()}, alone) < 1e-5


@ALL
def test_any_length(settings: dict[str, Any]) -> None:
    model = trained(build(settings))
    for num_frames in LENGTHS:
        (out,) = model(samples(clip(num_frames)))
        assert all(len(x) == num_frames and x.isfinite().all() for x in out.values())


@ALL
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (24, 25), (21, 40), (64, 3)])
def test_sizes_off_the_stride(settings: dict[str, Any], height: int, width: int) -> None:
    model = trained(build(settings))
    video = torch.randint(0, 256, (1, 3, 3, height, width), dtype=torch.uint8)
    out = model.infer(video)
    assert out["masks"].shape == (1, 3, 3, height, width)
    assert out["segmentation"].shape == (1, 3, height, width)
    cells = 4 // model.perception.backbone.stride  # of four padded pixels
    assert out["attn"].shape[-2:] == (-(-height // 4) * cells, -(-width // 4) * cells)
    for name in SUM_TO_ONE:
        assert (out[name].sum(2) - 1).abs().max() < 1e-5
    losses = model.train()(samples(video[0]))
    assert all(value.isfinite() for value in losses.values())


def test_padding_is_cut_off_what_is_drawn() -> None:
    model = build({"COMPOSE": "decoder", "MASK_SOURCE": "decoder"})
    whole = model.infer(clip(2, 24, 24)[None])
    model.decoder.forward = lambda slots: (  # type: ignore[method-assign]
        whole["rgb_slots"].flatten(0, 1).clone(),
        whole["decoder_masks"].flatten(0, 1).log(),
    )
    cut = model.infer(clip(2, 21, 24)[None])
    for name in ("rgb_slots", "decoder_masks"):
        old, new = whole[name], cut[name]
        # 21 of 24 rows are stretched over all 16: the first row moves little, the last far.
        row = 15.5 * 21 / 24 - 0.5
        low, share = int(row), row - int(row)
        expected = old[..., low, :].lerp(old[..., low + 1, :], share)
        torch.testing.assert_close(new[..., 15, :], expected)
        assert not torch.allclose(new[..., 15, :], old[..., 15, :])
    torch.testing.assert_close(cut["masks"], whole["masks"][..., :21, :])


def test_odd_videos() -> None:
    model = trained(build(PHASE2))
    frames = clip(4)
    (plain,) = model(samples(frames))
    alpha = torch.full((4, 1, 24, 24), 7, dtype=torch.uint8)
    (with_alpha,) = model(samples(torch.cat([frames, alpha], 1)))
    assert difference(plain, with_alpha) == 0
    grey, tripled = model(samples(frames[:, :1], frames[:, :1].repeat(1, 3, 1, 1)))
    assert difference(grey, tripled) == 0
    for level in (0, 128, 255):
        (flat,) = model(samples(torch.full((4, 3, 24, 24), level, dtype=torch.uint8)))
        assert all(x.isfinite().all() for x in flat.values())
    losses = model.train()(samples(torch.full((4, 3, 24, 24), 99, dtype=torch.uint8)))
    assert all(value.isfinite() for value in losses.values())


def test_more_slots_than_tokens() -> None:
    settings = {**PHASE2, "ATTENTION.NUM_SLOTS": 11}
    model = trained(build(settings))
    frames = clip(3, 8, 8)  # 2 x 2 tokens
    (out,) = model(samples(frames))
    assert out["attn"].shape == (3, 11, 2, 2)
    assert (out["masks"].sum(1) - 1).abs().max() < 1e-5
    losses = model.train()(samples(frames))
    assert all(value.isfinite() for value in losses.values())


@ALL
def test_a_long_video_in_pieces(settings: dict[str, Any]) -> None:
    model = build(settings)  # an untrained transformer: what it adds depends on what it sees
    frames = clip(11)
    (whole,) = model(samples(frames))
    state, pieces = None, []
    for start, stop in ((0, 4), (4, 5), (5, 11)):
        piece, state = model.stream(frames[start:stop], state)
        pieces.append(piece)
    joined = {name: torch.cat([piece[name] for piece in pieces]) for name in whole}
    assert difference(whole, joined) < 1e-5
    with pytest.raises(DataError, match="frames of 20x24 come after frames of 24x24 pixels"):
        model.stream(frames[..., :20], state)


def test_what_a_stream_keeps_does_not_grow() -> None:
    model = trained(build({**PHASE2, "TIME.LINK": True, "ENCODER.INPUT_DIFF": True}))
    state, sizes = None, []
    for number in range(12):
        piece, state = model.stream(clip(3, seed=number), state)
        assert state.perception.num_frames == 3 * (number + 1)
        file = io.BytesIO()
        torch.save(state, file)  # of a view the whole tensor under it, as in memory
        sizes.append(file.tell())
    assert max(sizes[4:]) < sizes[3] + 1000
    assert state is not None
    assert state.context.shape[1] == model.window - 1
    # The last piece reads what came before it.
    assert difference(piece, model.stream(clip(3, seed=11), None)[0]) > 1e-3


def test_switching_the_transformer_on_changes_nothing_at_first() -> None:
    off = build({**PHASE2, "TRANSFORMER.ENABLED": False, "LOSS.MASKED_SLOTS": 0.0})
    on = build(PHASE2, seed=5)
    on.load_state_dict(off.state_dict())
    for num_frames in (1, 4, 11):
        video = clip(num_frames)[None]
        assert difference(off.infer(video), on.infer(video)) < 1e-5


def test_dropped_frames_are_not_looked_at() -> None:
    off, on = build(VIDEO), trained(build(PHASE2))
    frames, dropped = clip(6), torch.tensor([0, 0, 1, 1, 0, 1]).bool()
    noise = torch.where(dropped.view(-1, 1, 1, 1), 255 - frames, frames)
    for model in (off, on):
        (out,) = model([{"frames": frames, "dropped": dropped, "video_id": "v"}])
        (other,) = model([{"frames": noise, "dropped": dropped, "video_id": "v"}])
        seen, seen_other = out.pop("slots_seen"), other.pop("slots_seen")
        assert difference(out, other) == 0
        assert not torch.allclose(seen, seen_other)
        (whole,) = model(samples(frames))
        assert torch.equal(seen, whole["slots_corrected"])
        for name in SUM_TO_ONE:
            assert (out[name].sum(1) - 1).abs().max() < 1e-5
        slots = out["slots_corrected"]
        torch.testing.assert_close(slots[2], slots[1].lerp(slots[4], 1 / 3))
        assert torch.equal(slots[5], slots[4])
        assert torch.equal(out["slots"], slots) == (not model.use_transformer)
        (plain,) = model([{"frames": frames, "dropped": ~dropped & dropped, "video_id": "v"}])
        assert difference(plain, whole) == 0
    with pytest.raises(DataError, match="clip v: every frame of a clip is dropped"):
        off([{"frames": frames, "dropped": torch.ones(6, dtype=torch.bool), "video_id": "v"}])


def test_masks_of_dropped_frames_are_those_of_a_trained_decoder() -> None:
    hidden = torch.tensor([[0, 1, 0]]).bool()
    shown = trained(build(PHASE2)).infer(clip(3)[None], hidden)
    flat = shown["decoder_masks"][:, 1].flatten(0, 1)
    sized = torch.nn.functional.interpolate(flat[None], (24, 24), mode="bilinear")[0]
    torch.testing.assert_close(shown["masks"][:, 1].flatten(0, 1), sized)
    assert not torch.allclose(shown["masks"][0, 0], shown["masks"][0, 1], atol=1e-3)
    untaught = build({**VIDEO, "COMPOSE": "attn"}).infer(clip(3)[None], hidden)
    around = untaught["masks"][:, [0, 2]].mean(1)
    torch.testing.assert_close(untaught["masks"][:, 1], around)


def test_hidden_frames_differ_from_clip_to_clip() -> None:
    model = trained(build(PHASE2))
    video = torch.stack([clip(4), clip(4, seed=1)])
    hidden = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 1]]).bool()
    both = model.infer(video, hidden)
    for row in range(2):
        alone = model.infer(video[row : row + 1], hidden[row : row + 1])
        assert difference({name: x[row : row + 1] for name, x in both.items()}, alone) < 1e-5


def test_boxes() -> None:
    settings = {**VIDEO, "ATTENTION.INIT": "boxes"}
    model, frames = build(settings), clip(3)
    here = torch.tensor([[0.1, 0.1, 0.4, 0.4]])
    (first,) = model([{"frames": frames, "boxes": here, "video_id": "v"}])
    (other,) = model([{"frames": frames, "boxes": here + 0.5, "video_id": "v"}])
    assert difference(first, other) > 1e-3
    pieces = [model.stream(frames[:2], boxes=here)]
    pieces.append(model.stream(frames[2:], pieces[0][1]))
    joined = {name: torch.cat([piece[name] for piece, _ in pieces]) for name in first}
    assert difference(first, joined) < 1e-5
    for mode in (model.eval(), model.train()):
        with pytest.raises(DataError, match=r"clip clip0: slots start from boxes .*INIT"):
            mode(samples(frames))
    losses = model([{"frames": frames, "boxes": here, "video_id": "v"}])
    losses["loss_reconstruction"].backward()
    assert model.perception.initial_slots.box_mlp.layers[0].weight.grad is not None


def test_shapes_that_are_no_clips_are_told() -> None:
    model = build()
    with pytest.raises(DataError, match=r"shape \(4, 3, 24, 24\) are no batch .* video\[None\]"):
        model.infer(clip(4))
    with pytest.raises(DataError, match=r"shape \(1, 1, 4, 3, 24, 24\) are no batch"):
        model.stream(clip(4)[None])
    with pytest.raises(DataError, match=r"shape \(1, 3\) do not belong to 1 clips of 4 frames"):
        model.infer(clip(4)[None], torch.tensor([[True, False, False]]))
    for mode in (model, model.train()):
        with pytest.raises(DataError, match="clip clip0: clips of shape"):
            mode(samples(clip(4)[0]))


def test_bad_samples_are_named() -> None:
    frames = torch.full((2, 3, 24, 24), torch.nan)
    for model in (build(), build().train()):
        with pytest.raises(DataError, match="clip v7: the pixels lie within nan to nan"):
            model([{"frames": frames, "video_id": "v7"}])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ENCODER.NORM", "LN", "ENCODER.NORM is 'LN'; nearest: "),
        ("ENCODER.NAME", "pyramide", "ENCODER.NAME is 'pyramide'; nearest: pyramid"),
        ("ENCODER.STRIDES", [2, 3], r"MODEL.SLOT_BERT.ENCODER: the strides multiply to 6"),
        ("ENCODER.POSITION", "fourrier", "ENCODER.POSITION is 'fourrier'; nearest: fourier"),
        ("ATTENTION.INIT", "learnt", "ATTENTION.INIT is 'learnt'; nearest: learned"),
        ("ATTENTION.NUM_SLOTS", 0, "ATTENTION.NUM_SLOTS is 0; set 1 or more"),
        ("ATTENTION.HEADS", 3, "MODEL.SLOT_BERT.ATTENTION: 3 heads"),
        ("ATTENTION.TEMPERATURE", 0.0, "ATTENTION.TEMPERATURE is 0.0; it must be above 0"),
        ("TIME.MODE", "recurent", "TIME.MODE is 'recurent'; nearest: recurrent"),
        ("TRANSFORMER.START", -0.1, "TRANSFORMER.START is -0.1; give a share"),
        ("TIME.ITERS_NEXT", 0, "TIME.ITERS_NEXT is 0; set 1 or more"),
        ("DECODER.NAME", "conv", "MODEL.SLOT_BERT.DECODER: decoder 'conv'"),
        ("DECODER.SIZE", 24, "MODEL.SLOT_BERT.DECODER: size 24"),
        ("DECODER.SUBSAMPLE", 0.5, "DECODER.SUBSAMPLE is 0.5, but only DECODER.NAME mlp"),
        ("DECODER.SUBSAMPLE", 0.0, "DECODER.SUBSAMPLE is 0.0; it must be above 0"),
        ("MASK_SOURCE", "attention", "MASK_SOURCE is 'attention'; nearest: "),
        ("TRANSFORMER.AXIS", "times", "TRANSFORMER.AXIS is 'times'; nearest: time"),
        ("TRANSFORMER.NUM_HEADS", 3, "MODEL.SLOT_BERT.TRANSFORMER: 3 heads"),
        ("TRANSFORMER.STRIDE", 7, "TRANSFORMER.STRIDE is 7, more than the frames of a window"),
        ("TRANSFORMER.MASK_RATIO", 1.5, r"TRANSFORMER.MASK_RATIO is 1.5; give a share in \[0, 1\]"),
        ("TRANSFORMER.MASK_UNIT", "frames", "TRANSFORMER.MASK_UNIT is 'frames'; nearest: frame"),
        ("TRANSFORMER.WINDOW", 0, "TRANSFORMER.WINDOW is 0; set 1 or more"),
        ("ENCODER.CHANNELS", [0, 8], r"ENCODER.CHANNELS is \[0, 8\]; set 1 or more"),
        ("ENCODER.POSITION_SIZE", [8], r"ENCODER.POSITION_SIZE is \[8\]; give rows and columns"),
        ("DECODER.CHANNELS", 0, "DECODER.CHANNELS is 0; set 1 or more"),
        ("ATTENTION.LUMA", -0.5, "ATTENTION.LUMA is -0.5; set 0 or more"),
        ("LOSS.MASKED_SLOTS", 0.5, "LOSS.MASKED_SLOTS is the loss of the temporal transformer"),
    ],
)
def test_config_errors_name_keys(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(config_of({key: value}))


def test_a_transformer_that_nothing_teaches_is_refused() -> None:
    settings = {**PHASE2, "DETACH_DECODER": True, "LOSS.MASKED_SLOTS": 0.0}
    with pytest.raises(
        ConfigError, match=r"no loss teaches .*; set LOSS.MASKED_SLOTS .with DETACH"
    ):
        build_model(config_of(settings))
    build_model(config_of({**settings, "LOSS.SCHEDULE": [["MASKED_SLOTS", 0.5, 0.6, 0.0, 1.0]]}))


@ALL
def test_mixed_precision(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    model = build(settings)
    exact = model.infer(clip(3)[None])
    with torch.autocast("cpu", torch.bfloat16), caplog.at_level(logging.WARNING):
        rough = model.infer(clip(3)[None])
        outputs = model.train()(samples(clip(3), clip(3, seed=1)))
    assert {x.dtype for name, x in rough.items() if name != "segmentation"} == {torch.float32}
    for name in SUM_TO_ONE:
        assert (rough[name].sum(2) - 1).abs().max() < 1e-5
    torch.testing.assert_close(rough["attn"], exact["attn"], atol=0.1, rtol=0)
    total = sum(x for name, x in outputs.items() if "/" not in name)
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
