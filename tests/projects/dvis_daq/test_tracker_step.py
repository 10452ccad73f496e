"""The step of fixed size, made for export, against the tracking of everyday."""

from __future__ import annotations

import pytest
import torch

from vidseg.modeling.transformer_decoder import DecoderOutput
from vidseg.projects.dvis_daq.inference import track_window
from vidseg.projects.dvis_daq.memory import TrackMemory, TrackRules
from vidseg.projects.dvis_daq.results import MaskQuality
from vidseg.projects.dvis_daq.tracker import VideoInstanceCutter
from vidseg.projects.dvis_daq.tracker_step import TrackerStep, TrackerTensors

NUM_QUERIES, CHANNELS, NUM_LOGITS = 7, 16, 4
RULES = {
    "published": TrackRules(0.45, 0.4, max_missed=3),
    "gated": TrackRules(0.4, 0.4, 0.4, "gate", max_missed=2),
    "averaged": TrackRules(0.45, 0.4, 0.1, "mean", max_missed=1, max_births=2),
    "without doubles": TrackRules(0.5, 0.4, max_missed=1, birth_overlap=0.7),
}


def tracker(**options) -> VideoInstanceCutter:
    return VideoInstanceCutter(
        hidden_dim=CHANNELS,
        feedforward_dim=16,
        num_heads=2,
        num_layers=2,
        num_classes=NUM_LOGITS - 1,
        num_new_instances=NUM_QUERIES,
        num_slots=2,
        **options,
    ).eval()


def clip(num_frames: int = 8) -> DecoderOutput:
    embeds = torch.randn(num_frames, NUM_QUERIES, CHANNELS)
    return DecoderOutput(
        logits=torch.randn(num_frames, NUM_QUERIES, NUM_LOGITS),
        masks=torch.randn(num_frames, NUM_QUERIES, 6, 7),
        embeds=embeds,
        embeds_without_norm=embeds,
        mask_features=torch.randn(num_frames, CHANNELS, 6, 7),
    )


def run(step: TrackerStep, window: DecoderOutput, size: int) -> list[tuple[torch.Tensor, ...]]:
    state = tuple(TrackerTensors.empty(size, CHANNELS, NUM_LOGITS))
    found = []
    columns = (window.logits, window.masks, window.embeds, window.mask_features)
    for frame in zip(*columns, strict=True):
        found.append(step(*frame, *state))
        state = found[-1][5:]
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "anchors_from_queries", "assignment"),
    [
        ("published", False, "optimal"),
        ("gated", False, "greedy"),
        ("gated", True, "optimal"),
        ("averaged", True, "greedy"),
        ("without doubles", True, "optimal"),
    ],
)
def test_tracks_are_those_of_the_memory(kind, anchors_from_queries, assignment) -> None:
    network = tracker(slot_assignment=assignment, anchors_from_queries=anchors_from_queries)
    network.class_embed.weight.mul_(4)
    rules, window, table = RULES[kind], clip(), torch.randn(NUM_QUERIES, CHANNELS)
    found = run(TrackerStep(network, table, rules), window, 40)
    quality, ended, missed, num_births = MaskQuality(), 0, 0, []
    memory = TrackMemory.empty(CHANNELS, NUM_LOGITS)
    steps = track_window(network, window, memory, rules, table)
    for (memory, tracks), (visible, scores, rated, masks, dropped, *state) in zip(
        steps, found, strict=True
    ):
        after, n = TrackerTensors(*state), len(memory)
        assert after.ids.tolist() == memory.ids.tolist() + [-1] * (40 - n)
        assert visible.tolist() == tracks.visible.tolist() + [False] * (40 - n)
        assert after.starts[:n].tolist() == memory.starts.tolist()
        assert after.missed[:n].tolist() == memory.missed.tolist()
        assert (int(after.num_frames), int(after.next_id)) == (memory.num_frames, memory.next_id)
        assert int(dropped) == 0
        torch.testing.assert_close(masks[:n], tracks.masks, rtol=1e-4, atol=1e-4)
        assert (masks[n:] < 0).all()
        torch.testing.assert_close(after.queries[:n], memory.embeds, rtol=1e-4, atol=1e-4)
        positions = memory.positions.positions
        torch.testing.assert_close(after.positions[:n], positions, rtol=1e-4, atol=1e-4)
        mean = memory.as_ended().logits.softmax(1)[:, :-1]
        torch.testing.assert_close(scores[:n], mean, rtol=1e-4, atol=1e-5)
        quality.add(memory.ids.tolist(), tracks.masks)
        torch.testing.assert_close(rated[:n], quality.of(memory.ids.tolist()), rtol=1e-4, atol=1e-5)
        ended, missed = ended + len(tracks.ended), missed + int((~tracks.visible).sum())
        num_births.append(memory.next_id)
    assert num_births[0] < num_births[-1]
    assert ended
    assert missed or rules.max_missed == 1


@torch.no_grad()
def test_the_best_new_objects_take_what_room_there_is() -> None:
    network, window = tracker(), clip(1)
    rules = TrackRules(0.0, 0.0)
    step = TrackerStep(network, torch.randn(NUM_QUERIES, CHANNELS), rules)
    visible, _, _, masks, dropped, *state = run(step, window, 3)[0]
    assert int(dropped) == NUM_QUERIES - 3
    assert TrackerTensors(*state).ids.tolist() == [0, 1, 2]
    assert visible.all()
    best = window.logits[0].softmax(1)[:, :-1].amax(1).topk(3).indices.sort().values
    whole = run(step, window, NUM_QUERIES)[0][3]
    torch.testing.assert_close(masks, whole[best])


@torch.no_grad()
def test_a_frame_without_numbers_passes() -> None:
    window = clip(4)
    window.embeds[1], window.logits[1] = float("nan"), float("nan")
    rules = TrackRules(0.3, 0.3, 0.1, "gate", birth_overlap=0.5)
    step = TrackerStep(tracker(), torch.randn(NUM_QUERIES, CHANNELS), rules)
    assert len(run(step, window, 9)) == 4
