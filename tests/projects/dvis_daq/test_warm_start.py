"""Heads that are copied predict what the stage before predicted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidseg.config import get_cfg
from vidseg.errors import ConfigError
from vidseg.layers.mlp import MLP
from vidseg.projects.dvis_daq.config import add_config
from vidseg.projects.dvis_daq.refiner import TemporalRefiner
from vidseg.projects.dvis_daq.tracker import VideoInstanceCutter
from vidseg.projects.dvis_daq.warm_start import warm_start_refiner, warm_start_tracker

_SIZES = {
    "hidden_dim": 16,
    "feedforward_dim": 24,
    "num_heads": 2,
    "num_layers": 1,
    "num_classes": 3,
}


class _Predictor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder_norm = nn.LayerNorm(16)
        self.class_embed = nn.Linear(16, 4)
        self.mask_embed = MLP(16, 16, 16, 3)
        nn.init.normal_(self.decoder_norm.weight)


def _tracker(**sizes: int) -> VideoInstanceCutter:
    return VideoInstanceCutter(**(_SIZES | sizes), num_new_instances=5)


def test_tracker_predicts_like_the_frame_decoder():
    torch.manual_seed(0)
    tracker, predictor = _tracker(), _Predictor()
    warm_start_tracker(tracker, predictor)
    queries, features = torch.randn(5, 16), torch.randn(16, 6, 7)
    logits, masks = tracker.predict(queries, tracker.project(features))
    normed = predictor.decoder_norm(queries)
    expected = torch.einsum("qc,chw->qhw", predictor.mask_embed(normed), features)
    torch.testing.assert_close(logits, predictor.class_embed(normed))
    torch.testing.assert_close(masks, expected)


def test_one_head_reads_the_whole_of_the_most_similar_query():
    torch.manual_seed(0)
    tracker = _tracker(num_heads=1)
    warm_start_tracker(tracker, _Predictor())
    memory = torch.nn.functional.layer_norm(torch.randn(1, 4, 16), (16,))
    layer = tracker.transformer_cross_attention_layers[0]
    read = layer.multihead_attn(memory, memory, memory)[0]
    torch.testing.assert_close(read, memory, rtol=0, atol=0.05)


def test_heads_must_divide_the_width():
    cfg = get_cfg()
    add_config(cfg)
    cfg.MODEL.VIDEO_HEAD.NUM_NEW_INS = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    cfg.MODEL.MASK_FORMER.HIDDEN_DIM = cfg.MODEL.SEM_SEG_HEAD.MASK_DIM = 16
    assert VideoInstanceCutter.from_config(cfg)["num_heads"] == cfg.MODEL.MASK_FORMER.NHEADS
    cfg.MODEL.TRACKER.NHEADS = 1
    assert VideoInstanceCutter.from_config(cfg)["num_heads"] == 1
    cfg.MODEL.TRACKER.NHEADS = 3
    with pytest.raises(ConfigError, match=r"MODEL.TRACKER.NHEADS is 3"):
        VideoInstanceCutter.from_config(cfg)


def test_refiner_predicts_like_the_tracker_up_to_a_constant_per_mask():
    torch.manual_seed(0)
    tracker = _tracker()
    refiner = TemporalRefiner(**_SIZES, mask_dim=16)
    warm_start_refiner(refiner, tracker)
    queries, features = torch.randn(5, 16), torch.randn(16, 6, 7)
    expected = tracker.segment(queries, tracker.project(features))
    masks = refiner.segment(queries[None, :, None], features[None, None])[0, :, 0]
    constant = (expected - masks).flatten(1)
    torch.testing.assert_close(constant, constant[:, :1].expand_as(constant), rtol=0, atol=1e-5)
    logits = refiner.classify(queries[None, :, None])[0]
    torch.testing.assert_close(logits, tracker.classify(queries))
