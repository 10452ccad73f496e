"""The tracker against recorded runs of the published code, frame by frame."""

from __future__ import annotations

import pytest
import torch

from tests.golden_utils import GoldenCase, load_case
from vidseg.modeling.transformer_decoder.masked import DecoderOutput
from vidseg.projects.dvis_daq.inference import FrameTracks, track_window
from vidseg.projects.dvis_daq.memory import EndedTracks, TrackMemory, TrackRules, foreground_score
from vidseg.projects.dvis_daq.sequences import track_clip
from vidseg.projects.dvis_daq.slots import assign_slot_queries
from vidseg.projects.dvis_daq.tracker import Frame, LiveTracks, VideoInstanceCutter

RULES = {
    "A_": TrackRules(0.85, 0.5, 0.6, "gate", max_missed=4),
    "B_": TrackRules(0.85, 0.5, 0.6, "unused", max_missed=4),
    "C_": TrackRules(0.85, 0.5, 0.6, "mean", max_missed=4),
}


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return load_case("dvis_daq/tracker_window")


@pytest.fixture(scope="module")
def tracker(case: GoldenCase) -> VideoInstanceCutter:
    tracker = VideoInstanceCutter(
        hidden_dim=32,
        feedforward_dim=48,
        num_heads=4,
        num_layers=3,
        num_classes=6,
        num_new_instances=8,
        num_slots=3,
    )
    assert {k: tuple(v.shape) for k, v in tracker.state_dict().items()} == case.names_shapes
    tracker.load_state_dict(case.state_dict())
    return tracker.eval()


@pytest.fixture(scope="module")
def clip(case: GoldenCase) -> DecoderOutput:
    inputs = case.inputs
    # The tracker reads only whether a query of the first frame is good enough.
    logits = torch.zeros(12, 8, 7)
    logits[..., 0] = torch.where(inputs["valid"], 9.0, -9.0)
    embeds = inputs["frame_embeds"][0].permute(1, 2, 0)  # (T, Q, C)
    return DecoderOutput(
        logits=logits,
        masks=inputs["frame_masks"],
        embeds=embeds,
        embeds_without_norm=embeds,
        mask_features=inputs["mask_features"][0],
    )


def frames_of(clip: DecoderOutput, start: int, stop: int) -> DecoderOutput:
    return DecoderOutput(
        clip.logits[start:stop],
        clip.masks[start:stop],
        clip.embeds[start:stop],
        clip.embeds_without_norm[start:stop],
        clip.mask_features[start:stop],
    )


@torch.no_grad()
def run(
    tracker: VideoInstanceCutter,
    clip: DecoderOutput,
    table: torch.Tensor,
    rules: TrackRules,
    size: int,
) -> tuple[list[TrackMemory], list[FrameTracks]]:
    memory = TrackMemory.empty(32, 7)
    memories, frames = [], []
    for start in range(0, 12, size):
        window = frames_of(clip, start, start + size)
        for after, tracked in track_window(tracker, window, memory, rules, table):
            memory = after
            memories.append(after)
            frames.append(tracked)
    return memories, frames


def all_tracks(memories: list[TrackMemory], frames: list[FrameTracks]) -> EndedTracks:
    tracks = memories[-1].as_ended()
    for frame in frames:
        tracks = tracks.joined(frame.ended)
    return tracks


@pytest.mark.parametrize("name", ["A_", "B_", "C_"])
def test_track_table_equals_the_recorded_one(name, case, tracker, clip) -> None:
    golden = {key[2:]: value for key, value in case.outputs.items() if key.startswith(name)}
    table = case.inputs["seg_query_feat"]
    memories, frames = run(tracker, clip, table, RULES[name], size=4)
    tracks = all_tracks(memories, frames)

    assert tracks.ids.tolist() == list(range(17))
    assert torch.equal(tracks.starts, golden["sT"])
    assert torch.equal(tracks.lengths, golden["length"])
    live = memories[-1].ids
    assert torch.equal((~golden["dead"]).nonzero()[:, 0], live.sort().values)
    torch.testing.assert_close(
        tracks.positions, golden["sim_guided_pos_embed"], atol=5e-4, rtol=1e-4
    )
    for track, start, length in zip(tracks.ids, tracks.starts, tracks.lengths, strict=True):
        for column in range(length):
            frame = frames[start + column]
            row = int((frame.ids == track).nonzero())
            assert frame.visible[row] == golden["appearance"][track, column]
            expected = golden["embeds"][track, column]
            torch.testing.assert_close(frame.embeds[row], expected, atol=5e-4, rtol=1e-4)
            expected = golden["pred_masks"][track, column]
            torch.testing.assert_close(frame.masks[row], expected, atol=1e-3, rtol=1e-4)
        mean = golden["pred_logits"][track, :length].mean(0)
        torch.testing.assert_close(tracks.logits[track], mean, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["A_", "B_", "C_"])
def test_live_tracks_after_each_window(name, case, tracker, clip) -> None:
    golden = {key[2:]: value for key, value in case.outputs.items() if key.startswith(name)}
    memories, _ = run(tracker, clip, case.inputs["seg_query_feat"], RULES[name], size=4)
    for window in range(3):
        memory = memories[4 * window + 3]
        assert torch.equal(memory.ids, golden[f"w{window}_last_ids"])
        expected = golden[f"w{window}_track_queries"]
        torch.testing.assert_close(memory.embeds, expected, atol=5e-4, rtol=1e-4)
        expected = golden[f"w{window}_track_embeds"]
        torch.testing.assert_close(memory.positions.positions, expected, atol=5e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["A_", "C_"])
def test_scores_of_every_row_and_slot(name, case, tracker, clip) -> None:
    golden = {key[2:]: value for key, value in case.outputs.items() if key.startswith(name)}
    table = case.inputs["seg_query_feat"]
    memories, _ = run(tracker, clip, table, RULES[name], size=12)
    projected = tracker.project(clip.mask_features)
    for t in range(12):
        frame = Frame(clip.embeds[t], clip.mask_features[t], projected[t], clip.masks[t])
        if t == 0:
            queries = tracker.first_frame(frame)
        else:
            before = memories[t - 1]
            live = LiveTracks(before.embeds, before.positions.positions)
            queries = tracker.next_frame(frame, live)
            content = torch.cat([live.embeds, tracker.bg_slots.weight])
            chosen = assign_slot_queries(content, table)
            assert torch.equal(chosen, golden[f"f{t:02}_slot_init_index"])
            slots = tracker.classify(tracker.slots(frame, live, table)[-1])
            expected = golden[f"f{t:02}_slot_logits"]
            torch.testing.assert_close(slots[: len(expected)], expected, atol=5e-4, rtol=1e-4)
        scores = foreground_score(tracker.classify(queries[-1]))
        torch.testing.assert_close(scores, golden[f"f{t:02}_prob"], atol=5e-4, rtol=1e-4)
        if t < 2:
            expected = golden[f"f{t:02}_query_out"]
            torch.testing.assert_close(queries[-1], expected, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 3, 12])
def test_window_size_changes_nothing(size, case, tracker, clip) -> None:
    table = case.inputs["seg_query_feat"]
    one, _ = run(tracker, clip, table, RULES["A_"], size=4)
    other, _ = run(tracker, clip, table, RULES["A_"], size=size)
    assert torch.equal(one[-1].ids, other[-1].ids)
    torch.testing.assert_close(one[-1].logits_sum, other[-1].logits_sum, atol=1e-4, rtol=1e-5)


def test_clip_for_training_holds_sequences_and_masks(case, tracker, clip) -> None:
    golden = {key[2:]: value for key, value in case.outputs.items() if key.startswith("C_")}
    rules = TrackRules(0.85, 0.5, 0.6, "gate", max_missed=4, min_length=5).for_training()
    sequences = track_clip(tracker, clip, rules, case.inputs["seg_query_feat"])
    masks = sequences.masks

    # Short tracks count as noise unless they last to the end.
    last = golden["sT"] + golden["length"]
    kept = ((golden["length"] >= 5) | (last == 12)).nonzero()[:, 0]
    assert torch.equal(sequences.ids, kept)
    assert masks.shape == (len(kept), 12, 10, 14)
    for row, track in enumerate(kept):
        start, length = int(golden["sT"][track]), int(golden["length"][track])
        inside = torch.zeros(12, dtype=torch.bool)
        inside[start : start + length] = True
        assert torch.equal(sequences.padding[row], ~inside)
        expected = golden["embeds"][track, :length]
        torch.testing.assert_close(sequences.embeds[row, inside], expected, atol=5e-4, rtol=1e-4)
        position = golden["sim_guided_pos_embed"][track].expand(12 - length, -1)
        torch.testing.assert_close(sequences.embeds[row, ~inside], position, atol=5e-4, rtol=1e-4)
        expected = golden["pred_masks"][track, :length]
        torch.testing.assert_close(masks[row, inside], expected, atol=1e-3, rtol=1e-4)
        assert (masks[row, ~inside] == -1e4).all()


def test_an_empty_mask_has_a_position_and_no_track_is_no_trouble(tracker, clip) -> None:
    masks = torch.full((2, 10, 14), -1.0)
    masks[1] = 1.0
    codes = tracker.mask_position(masks, clip.mask_features[0])
    torch.testing.assert_close(codes[0], tracker.pos_embed(torch.zeros(32)))
    torch.testing.assert_close(codes[1], tracker.pos_embed(clip.mask_features[0].mean((1, 2))))
    assert tracker.mask_position(masks[:0], clip.mask_features[0]).shape == (0, 32)


@torch.no_grad()
def test_hidden_frame_queries_are_not_read_by_the_slots(case, tracker, clip) -> None:
    frame = Frame(clip.embeds[0], clip.mask_features[0], clip.mask_features[0], clip.masks[0])
    live = LiveTracks(torch.randn(2, 32), torch.randn(2, 32))
    table = case.inputs["seg_query_feat"]
    hidden = torch.arange(8) >= 5
    shorter = Frame(frame.embeds[:5], frame.mask_features, frame.projected, frame.masks)
    torch.testing.assert_close(
        tracker.slots(frame, live, table, hidden=hidden), tracker.slots(shorter, live, table)
    )
    assert tracker.slots(frame, live, table, hidden=hidden | True).isfinite().all()


def test_every_parameter_learns(case, clip) -> None:
    tracker = VideoInstanceCutter(
        hidden_dim=32,
        feedforward_dim=16,
        num_heads=2,
        num_layers=1,
        num_classes=6,
        num_new_instances=8,
        num_slots=2,
    )
    projected = tracker.project(clip.mask_features[1])
    frame = Frame(clip.embeds[1], clip.mask_features[1], projected, clip.masks[1])
    live = LiveTracks(torch.randn(3, 32), torch.randn(3, 32))
    logits, masks = tracker.predict(tracker.next_frame(frame, live), projected)
    slots, _ = tracker.predict(tracker.slots(frame, live, torch.randn(8, 32)), projected)
    assert logits.shape == (2, 11, 7)
    assert masks.shape == (2, 11, 10, 14)
    (logits.square().mean() + masks.square().mean() + slots.square().mean()).backward()
    silent = [name for name, p in tracker.named_parameters() if p.grad is None]
    assert silent == []
