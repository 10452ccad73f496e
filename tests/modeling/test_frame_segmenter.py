"""The frame segmenter: published numbers and names, training on uneven batches, sessions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden_utils import GOLDEN, apply_rule_weights, load_case
from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError, UserError
from vidseg.layers import onednn
from vidseg.modeling import build_model, resolve_device
from vidseg.modeling.backbone import ResNet
from vidseg.modeling.meta_arch import FrameSegmenter, frame_targets
from vidseg.modeling.transformer_decoder import masked
from vidseg.structures import ClipInstances

SMALL = {
    "BACKBONE.FREEZE_AT": 0,
    "RESNETS.DEPTH": 18,
    "RESNETS.NORM": "BN",
    "RESNETS.STEM_OUT_CHANNELS": 8,
    "RESNETS.RES2_OUT_CHANNELS": 8,
    "SEM_SEG_HEAD.NUM_CLASSES": 3,
    "SEM_SEG_HEAD.CONVS_DIM": 16,
    "SEM_SEG_HEAD.MASK_DIM": 16,
    "SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD": 32,
    "MASK_FORMER.HIDDEN_DIM": 16,
    "MASK_FORMER.NUM_OBJECT_QUERIES": 5,
    "MASK_FORMER.NHEADS": 2,
    "MASK_FORMER.DIM_FEEDFORWARD": 32,
    "MASK_FORMER.DEC_LAYERS": 3,
    "MASK_FORMER.REID_BRANCH": False,
    "MASK_FORMER.TRAIN_NUM_POINTS": 64,
    "MASK_FORMER.TEST.MAX_NUM": 4,
}


def official_cfg() -> CfgNode:
    """The keys of the published R50 segmenter; sizes at their published values."""
    cfg = get_cfg()
    model = {
        "META_ARCHITECTURE": "MinVIS",
        "DEVICE": "cpu",
        "PIXEL_MEAN": [123.675, 116.28, 103.53],
        "PIXEL_STD": [58.395, 57.12, 57.375],
        "RESNETS.STRIDE_IN_1X1": False,
        "RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "SEM_SEG_HEAD.NAME": "MaskFormerHead",
        "SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
        "SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "SEM_SEG_HEAD.NUM_CLASSES": 25,
        "SEM_SEG_HEAD.CONVS_DIM": 256,
        "SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 6,
        "MASK_FORMER.TRANSFORMER_DECODER_NAME": (
            "VideoMultiScaleMaskedTransformerDecoder_dvisPlus"
        ),
        "MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
        "MASK_FORMER.DROPOUT": 0.0,
        "MASK_FORMER.DEC_LAYERS": 10,
    }
    return changed(cfg, {"INPUT.FORMAT": "RGB"} | {f"MODEL.{k}": v for k, v in model.items()})


def changed(cfg: CfgNode, values: dict[str, Any]) -> CfgNode:
    for key, value in values.items():
        cfg.merge_from_list([key, value])
    return cfg


def small_model(**values: Any) -> FrameSegmenter:
    cfg = changed(official_cfg(), {f"MODEL.{k}": v for k, v in SMALL.items()})
    keys = {f"MODEL.{k.replace('__', '.')}": v for k, v in values.items()}
    model = build_model(changed(cfg, keys))
    assert isinstance(model, FrameSegmenter)
    return model


def clip(frames: int, height: int, width: int, num: int = 2) -> dict[str, Any]:
    masks = torch.zeros(num, frames, height, width, dtype=torch.bool)
    present = torch.ones(num, frames, dtype=torch.bool)
    for n in range(num):
        masks[n, :, 4 * n : 4 * n + 12, 6:30] = True
    if num:
        present[0, 0], masks[0, 0] = False, False
    labels = torch.arange(num) % 3
    return {
        "frames": torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8),
        "height": height,
        "width": width,
        "video_id": 7,
        "instances": ClipInstances(masks, labels, present),
    }


def test_channels_last_changes_the_layout_and_not_the_result(tmp_path: Path) -> None:
    plain, last = small_model(), small_model(CHANNELS_LAST=True)
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    last.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    features = last.eval().backbone(torch.randn(2, 3, 64, 64))
    for feature in features.values():
        assert feature.is_contiguous(memory_format=torch.channels_last)
    frames = clip(2, 48, 64)["frames"]
    with torch.no_grad():
        found, want = (model.eval().segment(frames) for model in (last, plain))
    torch.testing.assert_close(found.masks, want.masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.logits, want.logits, atol=1e-4, rtol=1e-4)
    gradients = []
    for model in (plain, last):
        torch.manual_seed(1)
        sum(model.train()([clip(2, 48, 64)]).values()).backward()
        gradients.append(model.backbone.stem.conv1.weight.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


# ---- published model --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ovis_DAQ_Online_R50", "ovis_DAQ_Offline_R50"])
def test_names_of_the_published_segmenter(name: str) -> None:
    file = GOLDEN / "dvis_daq" / "official_keys" / f"{name}.json.gz"
    entries = json.loads(gzip.decompress(file.read_bytes()))
    want = {n: tuple(s) for n, s, *_ in entries if n.startswith(("backbone.", "sem_seg_head."))}
    with torch.device("meta"):
        cfg = changed(official_cfg(), {"MODEL.DEVICE": "meta"})
        model = build_model(cfg)
    found = {n: tuple(w.shape) for n, w in model.state_dict().items()}
    assert {n: s for n, s in found.items() if not n.startswith("criterion.")} == want


def test_equals_the_published_segmenter(monkeypatch: pytest.MonkeyPatch) -> None:
    # One mask logit of frame 1 before layer 6 is -6e-6 in float64, and its sign is rounding in
    # float32; the recorded run saw it positive. All others keep 6e-5 away from zero.
    blocked = masked._blocked_positions
    shift = torch.tensor(3e-5)
    monkeypatch.setattr(
        masked,
        "_blocked_positions",
        lambda embeds, view: blocked(
            torch.cat([embeds, torch.ones_like(embeds[..., :1])], -1),
            torch.cat([view, shift.expand_as(view[:, :1])], 1),
        ),
    )
    case = load_case("dvis_daq/segmenter_r50")
    model = build_model(official_cfg()).eval()
    apply_rule_weights(model, case)
    with torch.no_grad():
        frames = model.preprocess(case.inputs["video"])
        features = model.backbone(frames)
        pixels = model.sem_seg_head.pixel_decoder(features)
        out = model.segment(case.inputs["video"], keep_aux=True)
    found: dict[str, Tensor] = {"pred_logits": out.logits[None]}
    found["pred_masks"] = out.masks.transpose(0, 1)[None]
    found["pred_embds"] = out.embeds.permute(2, 0, 1)[None]
    found["pred_embds_without_norm"] = out.embeds_without_norm.permute(2, 0, 1)[None]
    found["pred_reid_embed"] = out.reid_embeds.permute(2, 0, 1)[None]
    found |= {f"aux{i}_pred_logits": out.aux[i][0][None] for i in (0, 4, 8)}
    for key, tensor in {**features, "mask_features": out.mask_features}.items():
        found[f"{key}_every8th_channel"] = tensor[:, ::8]
        found[f"{key}_channel_mean"] = tensor.mean((-2, -1))
    found |= {f"multi_scale_{i}": pixels.multi_scale[i] for i in (0, 1)}
    found["multi_scale_2"] = pixels.multi_scale[2][:, ::2]
    assert set(found) == set(case.outputs)
    for key, value in found.items():
        atol = 2e-3 if key == "pred_masks" else 5e-4 if "pred" in key else 1e-4
        torch.testing.assert_close(value, case.outputs[key], atol=atol, rtol=0, msg=key)


# ---- preprocessing ----------------------------------------------------------------------------


def test_preprocessing_pads_with_zeros_after_normalising() -> None:
    model = small_model()
    frames = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    x = model.preprocess(frames)
    assert x.shape == (2, 3, 64, 64)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    want = (frames.float() - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(x[..., :40, :50], want)
    assert not x[..., 40:, :].any()
    assert not x[..., 50:].any()


def test_weights_that_expect_bgr_get_bgr() -> None:
    cfg = changed(official_cfg(), {f"MODEL.{k}": v for k, v in SMALL.items()})
    model = build_model(changed(cfg, {"INPUT.FORMAT": "BGR", "MODEL.PIXEL_STD": [1.0, 1.0, 1.0]}))
    frames = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    x = model.preprocess(frames) + model.pixel_mean
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([2.0, 1.0, 0.0]))


# ---- training ---------------------------------------------------------------------------------


def test_uneven_clips_train_every_parameter() -> None:
    model = small_model().train()
    losses = model([clip(2, 40, 64), clip(3, 64, 33, num=3), clip(1, 20, 20, num=0)])
    assert set(losses) == {
        f"loss_{kind}{layer}" for kind in ("ce", "mask", "dice") for layer in ("", "_0", "_1")
    }
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_batch_without_any_object() -> None:
    losses = small_model().train()([clip(2, 32, 32, num=0)])
    sum(losses.values()).backward()
    assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0


def test_padding_joins_clips_at_their_corner() -> None:
    model = small_model()
    small, large = clip(1, 30, 40), clip(2, 64, 90)
    frames, size = model.batch_frames([small, large])
    assert (size, frames.shape) == ((64, 96), (3, 3, 64, 96))
    torch.testing.assert_close(frames[:1, :, :32, :64], model.preprocess(small["frames"]))
    assert not frames[0, :, 30:].any()


@pytest.mark.parametrize(("match_absent", "counts"), [(True, [2, 2]), (False, [1, 2])])
def test_targets_of_single_frames(match_absent: bool, counts: list[int]) -> None:
    instances = clip(2, 30, 40, num=3)["instances"]
    instances.present[2] = False
    targets = frame_targets(instances, (32, 64), match_absent=match_absent)
    assert [len(target) for target in targets] == counts
    assert all(target.masks.shape[1:] == (1, 32, 64) for target in targets)
    assert targets[1].labels.tolist() == [0, 1]


def test_a_label_without_class() -> None:
    sample = clip(1, 32, 32)
    sample["instances"].labels[1] = 9
    with pytest.raises(
        UserError, match=r"video 7 has an object of label 9, but .*NUM_CLASSES is 3"
    ):
        small_model().train()([sample])


# ---- inference --------------------------------------------------------------------------------


def eval_model(**values: Any) -> FrameSegmenter:
    torch.manual_seed(3)
    model = small_model(**values).eval()
    # Random networks give nearly equal queries; spread them so that ranks and masks are clear.
    torch.nn.init.normal_(model.sem_seg_head.predictor.query_feat.weight, std=5)
    return model


def same(found: Any, want: Any) -> None:
    assert found.labels.tolist() == want.labels.tolist()
    assert found.track_ids.tolist() == want.track_ids.tolist()
    torch.testing.assert_close(found.scores, want.scores)
    assert found.frame_indices == want.frame_indices
    difference = found.masks_tensor() != want.masks_tensor()
    assert difference.float().mean() < 1e-3


def test_frames_go_together_only_where_their_bits_do_not_depend_on_it() -> None:
    backbone = ResNet(18, norm="FrozenBN").eval()
    assert not backbone.is_batch_invariant
    with torch.no_grad():
        assert backbone.is_batch_invariant == onednn.available()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not backbone.is_batch_invariant
        with torch.backends.mkldnn.flags(enabled=False):
            assert not backbone.is_batch_invariant
        assert not backbone.double().is_batch_invariant


def test_windows_change_nothing() -> None:
    sample = clip(5, 40, 50) | {"height": 80, "width": 100, "frame_indices": [3, 4, 5, 6, 9]}
    whole, parts = eval_model(MASK_FORMER__TEST__WINDOW_SIZE=9), eval_model()
    (want,), (found,) = whole([sample]), parts([sample])
    assert want.image_size == (80, 100)
    assert want.frame_indices == [3, 4, 5, 6, 9]
    assert len(want) == 4
    assert not want.scores.requires_grad
    same(found, want)


def test_batch_of_videos_equals_single_videos() -> None:
    model = eval_model()
    samples = [clip(2, 40, 50), clip(3, 33, 64)]
    together = model(samples)
    for found, sample in zip(together, samples, strict=True):
        same(found, model([sample])[0])


def test_a_session_reports_windows_and_the_whole() -> None:
    model = eval_model()
    frames = clip(5, 40, 50)["frames"]
    session = model.start()
    windows = [session.step(part) for part in frames.split(2)]
    assert [w.frame_indices for w in windows] == [[0, 1], [2, 3], [4]]
    whole = session.finish()
    same(whole, model([{"frames": frames, "height": 40, "width": 50}])[0])
    assert windows[-1].track_ids.tolist() == whole.track_ids.tolist()
    assert [track[-1] for track in whole.masks] == [track[-1] for track in windows[-1].masks]


def test_a_session_without_frames() -> None:
    assert len(eval_model().start(output_size=(8, 9)).finish()) == 0


def test_frames_of_another_size_are_refused() -> None:
    session = eval_model().start()
    session.step(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="differ in size"):
        session.step(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))


def test_one_label_and_quality() -> None:
    sample = clip(2, 32, 32)
    plain = eval_model()([sample])[0]
    single = eval_model(MASK_FORMER__TEST__ONE_LABEL_PER_TRACK=True)([sample])[0]
    assert len(set(single.track_ids.tolist())) == len(single)
    weighted = eval_model(MASK_FORMER__TEST__MASK_QUALITY=True)([sample])[0]
    assert weighted.scores.max() < plain.scores.max()


# ---- configuration ----------------------------------------------------------------------------


def broken(key: str, value: Any) -> Callable[[], object]:
    def build() -> object:
        cfg = changed(official_cfg(), {f"MODEL.{k}": v for k, v in SMALL.items()})
        return build_model(changed(cfg, {key: value}))

    return build


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5", "multi_scale_pixel_decoder"),
        ("MODEL.MASK_FORMER.TEST.WINDOW_SIZE", 0, "WINDOW_SIZE is 0"),
        ("MODEL.MASK_FORMER.TEST.TASK", "vps", "TASK 'vps'"),
        ("MODEL.MASK_FORMER.DEC_LAYERS", 0, "DEC_LAYERS is 0"),
        ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8, "COMMON_STRIDE is 8"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res9"], "'res9'"),
        ("MODEL.PIXEL_MEAN", [1.0], "PIXEL_MEAN needs 3"),
        ("INPUT.FORMAT", "YUV", "'YUV'"),
        ("MODEL.DEVICE", "warp", "MODEL.DEVICE warp"),
    ],
)
def test_contradictions_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        broken(key, value)()


def test_pyramid_decoder_fits_the_same_model() -> None:
    model = small_model(SEM_SEG_HEAD__PIXEL_DECODER_NAME="BasePixelDecoder").train()
    sum(model([clip(2, 32, 48)]).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_auto_device_exists() -> None:
    torch.empty(1, device=resolve_device(get_cfg()))
