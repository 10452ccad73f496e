"""Heads that are copied predict what the stage before predicted."""

from __future__ import annotations

import torch
from torch import nn

from vidseg.layers.mlp import MLP
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


def _tracker() -> VideoInstanceCutter:
    return VideoInstanceCutter(**_SIZES, num_new_instances=5)


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
