"""The frame segmenter with contrastive training."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from tests.golden_utils import GOLDEN
from vidseg.config import CfgNode, get_cfg, load_config
from vidseg.errors import ConfigError
from vidseg.modeling import build_model
from vidseg.projects.dvis_daq.contrastive_segmenter import ContrastiveSegmenter
from vidseg.structures import ClipInstances

REID = ("MODEL.META_ARCHITECTURE", "CTMinVIS", "MODEL.MASK_FORMER.REID_BRANCH", True)


@pytest.fixture
def cfg(tiny_cfg) -> CfgNode:
    return tiny_cfg("dvis_daq", "segmenter", *REID, "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 64)


def clip(frames, num=3):
    masks = torch.zeros(num, frames, 48, 64, dtype=torch.bool)
    for n in range(num):
        for t in range(frames):
            masks[n, t, 8 * n : 8 * n + 20, 6 + 3 * t : 30 + 3 * t] = True
    if num > 1 and frames > 2:
        masks[0, 1] = False  # leaves and comes back
        masks[1, :1] = False  # comes later
    return {
        "frames": torch.randint(0, 256, (frames, 3, 48, 64), dtype=torch.uint8),
        "height": 48,
        "width": 64,
        "instances": ClipInstances(masks, torch.arange(num) % 3, masks.flatten(2).any(2)),
    }


@pytest.mark.parametrize("match_absent", [True, False])
@pytest.mark.parametrize("num_queries", [12, 2])
def test_clips_train_every_parameter(cfg, match_absent, num_queries):
    cfg.MODEL.MASK_FORMER.MATCH_ABSENT = match_absent
    cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES = num_queries
    model = build_model(cfg).train()
    assert isinstance(model, ContrastiveSegmenter)
    losses = model([clip(4), clip(2, num=1), clip(1), clip(3, num=0)])
    assert {"loss_ce", "loss_mask_0", "loss_reid", "loss_aux_reid"} <= set(losses)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_reid"] > 0
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["loss_reid", "loss_aux_reid"])
def test_each_loss_reaches_the_head_and_the_queries(cfg, name):
    model = build_model(cfg).train()
    model([clip(4)])[name].backward()
    predictor = model.sem_seg_head.predictor
    assert all(p.grad.abs().sum() > 0 for p in predictor.reid_embed.parameters())
    assert predictor.query_feat.weight.grad.abs().sum() > 0
    assert predictor.class_embed.weight.grad is None


@pytest.mark.parametrize("sample", [clip(1), clip(3, num=0)], ids=["one frame", "no object"])
def test_clips_with_nothing_to_contrast(cfg, sample):
    model = build_model(cfg).train()
    losses = model([sample])
    assert losses["loss_reid"].item() == losses["loss_aux_reid"].item() == 0
    sum(losses.values()).backward()
    head = model.sem_seg_head.predictor.reid_embed
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_mixed_precision(cfg):
    model = build_model(cfg).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model([clip(3)])
    assert losses["loss_reid"].dtype == losses["loss_aux_reid"].dtype == torch.float32
    assert all(loss.isfinite() for loss in losses.values())


def test_weights_of_the_losses(cfg):
    cfg.MODEL.CL_PLUGIN.MOMENTUM_EMBED = False
    model = build_model(cfg).train()
    cfg.MODEL.CL_PLUGIN.REID_WEIGHT, cfg.MODEL.CL_PLUGIN.AUX_REID_WEIGHT = 4.0, 1.0
    other = build_model(cfg).train()
    other.load_state_dict(model.state_dict())
    sample = clip(4)
    found = []
    for each in (model, other):
        torch.manual_seed(1)
        found.append(each([sample]))
    torch.testing.assert_close(2 * found[0]["loss_reid"], found[1]["loss_reid"])
    torch.testing.assert_close(found[0]["loss_aux_reid"], 3 * found[1]["loss_aux_reid"])
    torch.testing.assert_close(found[0]["loss_ce"], found[1]["loss_ce"])


def test_training_lowers_the_loss(cfg):
    model = build_model(cfg).train()
    head = model.sem_seg_head.predictor.reid_embed
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    sample, values = clip(4), []
    for _ in range(15):
        losses = model([sample])
        optimizer.zero_grad()
        (losses["loss_reid"] + losses["loss_aux_reid"]).backward()
        optimizer.step()
        values.append(losses["loss_reid"].item())
    assert values[-1] < values[0]


def test_inference_is_that_of_the_frame_segmenter(cfg):
    model = build_model(cfg).eval()
    cfg.MODEL.META_ARCHITECTURE = "MinVIS"
    plain = build_model(cfg).eval()
    assert type(plain) is not type(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(model.state_dict())
    sample = clip(3)
    (found,), (want,) = model([sample]), plain([sample])
    assert found.track_ids.tolist() == want.track_ids.tolist()
    assert torch.equal(found.scores, want.scores)
    assert torch.equal(found.masks_tensor(), want.masks_tensor())


def test_names_are_the_published_ones(cfg):
    file = GOLDEN / "dvis_daq" / "official_keys" / "ovis_DAQ_Online_R50.json.gz"
    published = {entry[0] for entry in json.loads(gzip.decompress(file.read_bytes()))}
    head = [name for name in published if ".reid_embed." in name]
    assert len(head) == 6
    names = set(build_model(cfg).state_dict())
    assert set(head) <= names
    assert {n for n in names if ".predictor." in n} <= published


# ---- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.CL_PLUGIN.NUM_NEGATIVES", 0),
        ("MODEL.MASK_FORMER.REID_BRANCH", False),
        ("MODEL.MASK_FORMER.NUM_REID_HEAD_LAYERS", 0),
    ],
)
def test_contradictions_are_named(cfg, key, value):
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=rf"{key.rpartition('.')[2]}( is)? {value}"):
        build_model(cfg)


def test_decoder_without_the_head(cfg):
    model = build_model(cfg).train()
    model.sem_seg_head.predictor.reid_embed = None
    with pytest.raises(ConfigError, match="TRANSFORMER_DECODER_NAME"):
        model([clip(2)])


def test_config_without_any_key_of_the_project(cfg):
    plain = get_cfg()
    assert not plain.has("MODEL.CL_PLUGIN")
    for group in ("BACKBONE", "RESNETS", "SEM_SEG_HEAD", "MASK_FORMER"):
        plain.MODEL[group] = cfg.MODEL[group]
    plain.MODEL.META_ARCHITECTURE, plain.MODEL.DEVICE = "CTMinVIS", "cpu"
    model = build_model(plain)
    assert model.contrast.num_negatives == 99
    assert model.contrast.use_mean


def test_published_keys_have_an_effect():
    cfg = load_config(None, ["MODEL.CL_PLUGIN.NUM_NEGATIVES", 199])
    assert cfg.MODEL.CL_PLUGIN.NUM_NEGATIVES == 199
