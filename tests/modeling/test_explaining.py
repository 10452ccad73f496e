"""What a frame segmenter read: maps of its queries, and which query is which track."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden_utils import apply_rule_weights, load_case
from vidseg import VideoPredictor
from vidseg.config import CfgNode
from vidseg.errors import UserError
from vidseg.modeling import build_model
from vidseg.modeling.meta_arch import FrameSegmenter
from vidseg.modeling.postprocess import link_queries
from vidseg.modeling.transformer_decoder import last_attention


@pytest.fixture
def model(tiny_cfg: Callable[..., CfgNode]) -> FrameSegmenter:
    model: Any = build_model(tiny_cfg("dvis_daq", "segmenter")).eval()
    apply_rule_weights(model, load_case("dvis_daq/offline_end_to_end"))
    return model


def video(num_frames: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = 255 * torch.rand(num_frames, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(40, 56), mode="bilinear").byte()


def explained(model: FrameSegmenter, frames: Tensor, window_size: int = 2) -> tuple[Any, ...]:
    predictor = VideoPredictor(model, window_size=window_size)
    result, explanation = predictor.explain(list(frames), max_tracks=3)
    return result, explanation, list(explanation.attention())


@torch.no_grad()
def test_a_query_reads_only_where_its_mask_was(model: FrameSegmenter) -> None:
    decoder: Any = model.sem_seg_head.predictor
    heard: list[Tensor] = []
    layer = decoder.transformer_cross_attention_layers[-1]
    handle = layer.register_forward_hook(
        lambda _, args, kwargs, out: heard.append(kwargs["attn_mask"]), with_kwargs=True
    )
    attention = last_attention(decoder, lambda: model.segment(video(2)))
    handle.remove()
    assert attention.shape == (2, 12, 4, 4)  # the second of two layers reads stride 16
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(2, 12))
    blocked = heard[0].unflatten(-1, (4, 4))
    assert blocked.any()
    assert (attention[blocked] == 0).all()
    assert (attention[~blocked] > 0).all()


def test_results_are_those_without_explanation(model: FrameSegmenter) -> None:
    frames = video()
    plain = VideoPredictor(model, window_size=2).predict(list(frames))
    result, explanation, attention = explained(model, frames)
    assert torch.equal(result.scores, plain.scores)
    assert torch.equal(result.track_ids, plain.track_ids)
    assert result.masks == plain.masks
    assert len(attention) == 5
    best = plain.track_ids[plain.scores.argsort(descending=True, stable=True)].tolist()
    assert explanation.track_ids == list(dict.fromkeys(best))[:3]
    assert explanation.frame_weights is None
    assert explanation.rows is None
    hooks = [len(module._forward_hooks) for module in model.modules()]
    assert not any(hooks)


@torch.no_grad()
def test_maps_are_those_of_the_linked_queries(model: FrameSegmenter) -> None:
    frames = video()
    _, explanation, attention = explained(model, frames)
    windows = [model.segment(window) for window in frames.split(2)]
    order = link_queries(torch.cat([window.embeds for window in windows]))
    decoder: Any = model.sem_seg_head.predictor
    for number, frame in enumerate(attention):
        assert frame.queries == order[number, explanation.track_ids].tolist()
        assert frame.shares == [1.0] * 3
        assert frame.covered == (64 / 40, 64 / 56)
        start = number - number % 2
        window = frames[start : start + 2]
        maps = last_attention(decoder, lambda window=window: model.segment(window))
        torch.testing.assert_close(frame.maps, maps[number - start, frame.queries])


def test_windows_do_not_matter(model: FrameSegmenter) -> None:
    frames = video()
    _, one, by_one = explained(model, frames, window_size=1)
    _, all_, at_once = explained(model, frames, window_size=5)
    assert one.track_ids == all_.track_ids
    for a, b in zip(by_one, at_once, strict=True):
        assert a.queries == b.queries
        torch.testing.assert_close(a.maps, b.maps, atol=1e-4, rtol=1e-3)


def test_no_track_above_the_score(model: FrameSegmenter) -> None:
    predictor = VideoPredictor(model)
    _, explanation = predictor.explain(list(video(2)), min_score=1.01)
    assert explanation.track_ids == []


def test_what_cannot_be_explained_is_said(tiny_cfg: Callable[..., CfgNode]) -> None:
    model = build_model(tiny_cfg("dvis_daq", "segmenter", "MODEL.MASK_FORMER.DEC_LAYERS", 1)).eval()
    predictor = VideoPredictor(model)
    _, explanation = predictor.explain(list(video(2)))
    with pytest.raises(UserError, match=r"set MODEL\.MASK_FORMER\.DEC_LAYERS to 2 or more"):
        next(explanation.attention())
    for once in (iter(list(video(2))), "camera:0", "-"):
        with pytest.raises(UserError, match="reads its source twice"):
            predictor.explain(once)
    with pytest.raises(UserError, match="Linear offers no explanation of its results"):
        VideoPredictor(torch.nn.Linear(1, 1)).explain(list(video(2)))
