"""Memory of a frame with very many live tracks, counted in bytes of tensors."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vidseg.modeling.meta_arch import ResultPlace
from vidseg.modeling.transformer_decoder.masked import DecoderOutput
from vidseg.projects.dvis_daq import inference
from vidseg.projects.dvis_daq.inference import track_frame
from vidseg.projects.dvis_daq.memory import TrackMemory, TrackRules, commit_step, plan_step
from vidseg.projects.dvis_daq.positions import PositionMemory
from vidseg.projects.dvis_daq.sessions import TrackingParts, TrackingState
from vidseg.projects.dvis_daq.slots import SlotCompetition
from vidseg.projects.dvis_daq.tracker import Frame, LiveTracks, VideoInstanceCutter

NUM_TRACKS, QUERIES, CHANNELS = 1000, 8, 32


class LiveBytes(TorchDispatchMode):
    """Counts what tensors made inside hold at most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in args if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), given)
        return out

    def restart(self) -> int:
        """Looks for the most from now on; gives what there is now."""
        self.largest = self._now
        return self._now

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in self._known or key in given:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        self.largest = max(self.largest, self._now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self._now -= num_bytes


def memory_of(num_tracks: int) -> TrackMemory:
    counts = torch.randint(1, 20, (num_tracks,))
    ring = torch.randn(num_tracks, 9, CHANNELS)
    ring[torch.arange(9) >= counts[:, None]] = 0
    blocks = [block.clone() for block in ring.split(128)]
    positions = PositionMemory(torch.randn(num_tracks, CHANNELS), blocks, counts)
    return TrackMemory(
        ids=torch.arange(num_tracks),
        starts=torch.zeros(num_tracks, dtype=torch.int64),
        missed=torch.zeros(num_tracks, dtype=torch.int64),
        logits_sum=torch.randn(num_tracks, 3),
        embeds=torch.randn(num_tracks, CHANNELS),
        positions=positions,
        num_frames=1,
        next_id=num_tracks,
    )


@torch.no_grad()
def test_a_step_makes_no_second_ring() -> None:
    visible = torch.rand(NUM_TRACKS + QUERIES) > 0.1
    rows = (torch.randn(int(visible.sum()), size) for size in (CHANNELS, 3, CHANNELS))
    rows = dict(zip(("embeds", "logits", "codes"), rows, strict=True))
    with LiveBytes() as live:
        memory = memory_of(NUM_TRACKS)
        plan = plan_step(memory, visible, torch.ones(len(visible)), TrackRules(max_missed=1))
        before = live.restart()
        after = commit_step(memory, plan, **rows)
    ring = sum(block.nbytes for block in after.positions.recent)
    assert live.largest - before < 0.6 * ring


@pytest.mark.parametrize("num_new", [0, 3, 300])
@pytest.mark.parametrize("kept", [[], [0, 4, 17], [127, 128], [*range(3, 1000, 2)]])
def test_a_step_is_rows_append_and_update_to_the_bit(num_new: int, kept: list[int]) -> None:
    memory, index = memory_of(NUM_TRACKS).positions, torch.tensor(kept, dtype=torch.int64)
    num_rows = len(kept) + num_new
    codes, visible = torch.randn(num_rows, CHANNELS), torch.arange(num_rows) != 1
    expected = memory.rows(index).append(num_new).update(codes, visible)
    with torch.no_grad():
        found = memory.step(index, num_new, codes, visible)
    assert len(found.recent) == max(-(-num_rows // 128), 1)
    whole = found.rows(torch.arange(num_rows))
    for result in (found, whole):
        assert torch.equal(result.positions, expected.positions)
        assert torch.equal(result.counts, expected.counts)
    for own, block in zip(whole.recent, expected.recent, strict=True):
        assert torch.equal(own, block)


@torch.no_grad()
def test_young_tracks_keep_the_codes_that_they_have_had() -> None:
    stepped, updated = (PositionMemory.empty(0, CHANNELS, "cpu") for _ in range(2))
    for frame in range(12):
        num_tracks = len(stepped.counts) + 64
        codes, visible = torch.randn(num_tracks, CHANNELS), torch.rand(num_tracks) > 0.1
        stepped = stepped.step(torch.arange(num_tracks - 64), 64, codes, visible)
        updated = updated.append(64).update(codes, visible)
        assert torch.equal(stepped.positions, updated.positions)
        widths = [block.shape[1] for block in stepped.recent]
        assert widths == [min(frame + 1 - age, 9) for age in range(0, frame + 1, 2)]


def test_rows_are_copies_in_any_order() -> None:
    memory = memory_of(NUM_TRACKS).positions
    chosen = memory.rows(torch.tensor([400, 3, 3]))
    assert torch.equal(chosen.recent[0], torch.cat(memory.recent)[[400, 3, 3]])
    chosen.recent[0].zero_()
    assert memory.recent[0][3].any()


def test_a_backward_pass_reads_the_ring_as_it_was() -> None:
    codes = torch.rand(3, 4, CHANNELS, requires_grad=True)
    stepped, updated = (PositionMemory.empty(4, CHANNELS, "cpu") for _ in range(2))
    everyone, seen = torch.arange(4), torch.tensor([True, True, False, True])
    for code in codes:
        stepped = stepped.step(everyone, 0, code, seen)
        updated = updated.update(code, seen)
    (found,) = torch.autograd.grad(stepped.positions.square().sum(), codes, retain_graph=True)
    (expected,) = torch.autograd.grad(updated.positions.square().sum(), codes)
    assert torch.equal(found, expected)


def test_slots_compete_in_place_with_the_same_bits() -> None:
    competition, num_slots = SlotCompetition(CHANNELS), 500
    rows = torch.randn(3, num_slots, CHANNELS).unbind()
    expected = competition(*rows)
    with torch.no_grad(), LiveBytes() as live:
        found = competition(*rows)
    assert torch.equal(found, expected)
    shares = 4 * num_slots**2
    assert shares <= live.largest < 1.6 * shares


def test_more_slots_compete_in_parts() -> None:
    competition, num_slots = SlotCompetition(CHANNELS), 1500
    rows = torch.randn(3, num_slots, CHANNELS).unbind()
    expected = competition(*rows)
    with torch.no_grad(), LiveBytes() as live:
        found = competition(*rows)
    torch.testing.assert_close(found, expected)
    assert live.largest < 4 * num_slots**2 / 2


@pytest.fixture(scope="module")
def tracker() -> VideoInstanceCutter:
    torch.manual_seed(0)
    return VideoInstanceCutter(
        hidden_dim=CHANNELS,
        feedforward_dim=CHANNELS,
        num_heads=2,
        num_layers=6,
        num_classes=2,
        num_new_instances=QUERIES,
        num_slots=2,
    ).eval()


def a_frame() -> Frame:
    features = torch.randn(CHANNELS, 2, 3)
    return Frame(torch.randn(QUERIES, CHANNELS), features, features, torch.randn(QUERIES, 2, 3))


def a_window(num_frames: int) -> DecoderOutput:
    frames = [a_frame() for _ in range(num_frames)]
    embeds = torch.stack([frame.embeds for frame in frames])
    return DecoderOutput(
        logits=torch.zeros(num_frames, QUERIES, 3),
        masks=torch.stack([frame.masks for frame in frames]),
        embeds=embeds,
        embeds_without_norm=embeds,
        mask_features=torch.stack([frame.mask_features for frame in frames]),
    )


@torch.no_grad()
def test_the_last_layer_alone_is_the_same_and_takes_less(tracker) -> None:
    frame, table = a_frame(), torch.randn(QUERIES, CHANNELS)
    memory = memory_of(NUM_TRACKS)
    tracks = LiveTracks(memory.embeds, memory.positions.positions)
    assert torch.equal(tracker.first_frame(frame, last_only=True), tracker.first_frame(frame)[-1:])
    for run in (
        lambda **options: tracker.next_frame(frame, tracks, **options),
        lambda **options: tracker.slots(frame, tracks, table, **options),
    ):
        with LiveBytes() as every:
            expected = run()
        with LiveBytes() as last:
            found = run(last_only=True)
        assert torch.equal(found, expected[-1:])
        assert every.largest - last.largest > 4 * memory.embeds.nbytes


@torch.no_grad()
@pytest.mark.parametrize("slot_rule", ["unused", "gate"])
def test_a_frame_with_many_tracks_is_bounded_by_their_rows(tracker, slot_rule) -> None:
    table, memory = torch.randn(QUERIES, CHANNELS), memory_of(NUM_TRACKS)
    rules = TrackRules(slot_rule=slot_rule)
    with LiveBytes() as live:
        track_frame(
            tracker, a_frame(), memory, rules, first_scores=torch.ones(8), query_table=table
        )
    shares = 4 * NUM_TRACKS**2 if slot_rule == "gate" else 0
    assert live.largest < 20 * memory.embeds.nbytes + 1.6 * shares


@torch.no_grad()
def test_no_frame_is_computed_beside_the_masks_of_the_last_one(tracker, monkeypatch) -> None:
    seen: list[weakref.ref] = []

    def checked(*args: Any, **options: Any) -> Any:
        assert [ref() for ref in seen] == [None] * len(seen)
        return track_frame(*args, **options)

    monkeypatch.setattr(inference, "track_frame", checked)
    settings: Any = None  # of results
    parts = TrackingParts(
        segment=lambda frames: a_window(len(frames)),
        tracker=tracker,
        query_table=torch.randn(QUERIES, CHANNELS),
        rules=TrackRules(select_threshold=0.0, slot_threshold=0.0),
        settings=settings,
        window_size=3,
    )
    state = TrackingState(parts, ResultPlace(None, None))
    frames = torch.zeros(3, 3, 8, 12, dtype=torch.uint8)
    state.track(frames, lambda frame, tracked: seen.append(weakref.ref(tracked.masks)))
    assert len(seen) == 3


@torch.no_grad()
@pytest.mark.parametrize(("num_tracks", "released"), [(20, 0), (400, 5)])
def test_holes_of_many_tracks_are_given_back(tracker, num_tracks, released, monkeypatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(inference, "release_freed_memory", lambda: calls.append(None))
    # Everything is visible, so that all tracks live on.
    rules = TrackRules(select_threshold=0.0, slot_threshold=0.0, slot_rule="gate", max_births=0)
    table = torch.randn(QUERIES, CHANNELS)
    blocks: list[None] = []
    monkeypatch.setattr(
        inference, "large_blocks_mapped", lambda: blocks.append(None) or contextlib.nullcontext()
    )
    list(inference.track_window(tracker, a_window(1), memory_of(num_tracks), rules, table))
    assert (len(calls), len(blocks)) == (released, released > 0)
