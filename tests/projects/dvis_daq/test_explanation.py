"""What DVIS-DAQ's sessions read: the queries of tracks, births, weights of the frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.golden_utils import apply_rule_weights, load_case
from vidseg import VideoPredictor
from vidseg.config import CfgNode
from vidseg.modeling import build_model
from vidseg.modeling.meta_arch import RecordedSession
from vidseg.modeling.postprocess import link_queries
from vidseg.projects.dvis_daq.inference import track_window
from vidseg.projects.dvis_daq.memory import TrackMemory, TrackRules
from vidseg.projects.dvis_daq.online import OnlineModel

LIVELY = TrackRules(0.6, 0.4, 0.5, "gate", max_missed=2, min_length=2)
"""Thresholds at which the rule's weights give births, gaps and ends in a few frames."""

BOTH = pytest.mark.parametrize("stage", ["online", "offline"])


@pytest.fixture
def make(tiny_cfg: Callable[..., CfgNode]) -> Callable[..., Any]:
    def build(stage: str, *overrides: object) -> OnlineModel:
        model: Any = build_model(tiny_cfg("dvis_daq", stage, *overrides)).eval()
        apply_rule_weights(model, load_case("dvis_daq/offline_end_to_end"))
        model.rules = LIVELY
        return model

    return build


def video(num_frames: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(num_frames, 3, 6, 8, generator=generator)
    return F.interpolate(coarse, size=(40, 56), mode="bilinear").byte()


@BOTH
def test_results_are_those_without_explanation(make: Callable[..., Any], stage: str) -> None:
    model, frames = make(stage), list(video())
    predictor = VideoPredictor(model, window_size=4)
    plain = predictor.predict(frames)
    result, explanation = predictor.explain(frames, max_tracks=20)
    assert torch.equal(result.scores, plain.scores)
    assert torch.equal(result.labels, plain.labels)
    assert torch.equal(result.track_ids, plain.track_ids)
    assert result.masks == plain.masks
    assert set(explanation.track_ids) == set(plain.track_ids.tolist())
    list(explanation.attention())
    assert not any(len(module._forward_hooks) for module in model.modules())
    again = predictor.predict(frames)
    assert torch.equal(again.scores, plain.scores)


@BOTH
@torch.no_grad()
def test_rows_are_tracks_then_births(make: Callable[..., Any], stage: str) -> None:
    model, frames = make(stage), video()
    _, explanation = VideoPredictor(model, window_size=9).explain(list(frames))
    parts = model.parts()
    memory = TrackMemory.empty(64, 6)
    births = waiting = ends = 0
    steps = track_window(
        parts.tracker, model.segment(frames), memory, parts.rules, parts.query_table
    )
    for row, (after, tracked) in zip(explanation.rows, steps, strict=True):
        before = memory.ids.tolist()
        assert row.num_tracks == len(before)
        assert row.num_anchors == 12
        kept = list(zip(row.rows, row.ids, strict=True))
        assert all(before[number] == track for number, track in kept if number < len(before))
        born = [track for number, track in kept if number >= len(before)]
        assert born == list(range(memory.next_id, after.next_id))
        assert max(row.rows, default=0) < len(before) + 12
        assert row.visible == (after.missed == 0).tolist()
        assert set(row.ended) == set(before) - set(row.ids) == set(tracked.ended.ids.tolist())
        births, ends = births + len(born), ends + len(row.ended)
        waiting += row.visible.count(False)
        memory = after
    assert births
    assert waiting
    assert ends


@torch.no_grad()
def test_a_track_stands_for_the_query_it_reads_most(make: Callable[..., Any]) -> None:
    model, frames = make("online"), video(4)
    heard: list[list[torch.Tensor]] = []

    def listen(layer: Any, args: Any, kwargs: dict[str, Any], _: Any) -> None:
        queries, memory = args
        pos, memory_pos = kwargs["query_pos"], kwargs["memory_pos"]
        query = queries if pos is None else queries + pos
        key = memory if memory_pos is None else memory + memory_pos
        heard[-1].append(layer.multihead_attn(query, key, memory)[1][0])

    session = model.start()
    recorder = model.recorder(session)
    recorded = RecordedSession(session, recorder)
    layers = model.tracker.transformer_cross_attention_layers
    hooks = [layer.register_forward_hook(listen, with_kwargs=True) for layer in layers]
    for frame in frames.split(1):
        heard.append([])
        recorded.step(frame)
    result = recorded.finish()
    for hook in hooks:
        hook.remove()
    tracks = sorted(set(result.track_ids.tolist()))
    attention = recorder.attention(frames, 0, tracks)
    for number, (row, of_layers) in enumerate(zip(recorder.rows(), heard, strict=True)):
        weights = torch.stack(of_layers).mean(0)  # (P+Q, Q)
        for place, track in enumerate(tracks):
            found = attention[number].queries[place], attention[number].shares[place]
            total = float(attention[number].maps[place].sum())
            if track not in row.ids:
                assert found == (-1, 0.0)
                assert total == 0
                continue
            mine = weights[row.rows[row.ids.index(track)]]
            assert found[1] == pytest.approx(float(mine.max()), abs=1e-5)
            assert float(mine[found[0]]) == pytest.approx(float(mine.max()), abs=1e-5)
            assert total == pytest.approx(1, abs=1e-4)
    assert {q for frame in attention for q in frame.queries} - {-1}


@pytest.mark.parametrize("padded", [True, False])
@torch.no_grad()
def test_frame_weights_are_the_refiners(make: Callable[..., Any], padded: bool) -> None:
    model, frames = make("offline", "MODEL.REFINER.USE_PADDING_MASK", padded), video()
    torch.nn.init.normal_(model.refiner.activation_proj.weight)
    _, explanation = VideoPredictor(model, window_size=9).explain(list(frames), max_tracks=20)
    weights = explanation.frame_weights
    assert weights is not None
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert float(weights.std()) > 0.01
    outside = torch.tensor(
        [[track not in row.ids for row in explanation.rows] for track in explanation.track_ids]
    )
    assert outside.any()
    assert bool((weights[outside] == 0).all()) == padded
    normed: list[torch.Tensor] = []
    hook = model.refiner.class_embed.register_forward_hook(
        lambda _, args, out: normed.append(args[0].reshape(-1, 64))
    )
    features: list[torch.Tensor] = []
    last = model.refiner.transformer_ffn_layers[-1].register_forward_hook(
        lambda _, args, out: features.append(out)
    )
    session = model.start()
    session.step(frames)
    session.finish()
    hook.remove()
    last.remove()
    ids = session.refined[0].tolist()
    places = [ids.index(track) for track in explanation.track_ids]
    queries = model.refiner.decoder_norm(torch.cat(features))  # (T, N, C)
    mean = torch.einsum("nt,tnc->nc", weights, queries[:, places])
    torch.testing.assert_close(mean, torch.cat(normed)[places], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_instance_that_was_filled_in_is_one_linked_query(make: Callable[..., Any]) -> None:
    overrides = ("MODEL.VIDEO_HEAD.OFFLINE_FILL", True, "MODEL.MASK_FORMER.TEST.MAX_NUM", 60)
    model, frames = make("offline", *overrides), video(5)
    model.rules = TrackRules(0.6, 2.0, 0.5, "unused", max_missed=2, min_length=2)
    _, explanation = VideoPredictor(model, window_size=5).explain(list(frames), max_tracks=60)
    num_births = 1 + max((track for row in explanation.rows for track in row.ids), default=-1)
    filled = [place for place, i in enumerate(explanation.track_ids) if i >= num_births]
    assert filled
    order = link_queries(model.segment(frames).embeds)
    for number, frame in enumerate(explanation.attention()):
        for place in filled:
            row = explanation.track_ids[place] - num_births
            assert frame.queries[place] == int(order[number, row])
            assert frame.shares[place] == 1
