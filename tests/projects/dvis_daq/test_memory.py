"""The tracker's memory on tracks that a reader can follow by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vidseg.projects.dvis_daq.inference import without_noise
from vidseg.projects.dvis_daq.memory import (
    EndedTracks,
    TrackMemory,
    TrackRules,
    commit_step,
    end_tracks,
    foreground_score,
    plan_step,
)
from vidseg.projects.dvis_daq.positions import PositionMemory
from vidseg.projects.dvis_daq.sequences import best_tracks, gather_sequences

CHANNELS, LOGITS = 4, 3


def step(
    memory: TrackMemory, visible: list[bool], rules: TrackRules, scores: list[float] | None = None
) -> tuple[TrackMemory, EndedTracks]:
    seen = torch.tensor(visible, dtype=torch.bool)
    plan = plan_step(memory, seen, torch.tensor(scores or [1.0] * len(visible)), rules)
    num_kept = len(plan.kept)
    after = commit_step(
        memory,
        plan,
        embeds=torch.randn(num_kept, CHANNELS),
        logits=torch.ones(num_kept, LOGITS),
        codes=torch.randn(num_kept, CHANNELS),
    )
    return after, end_tracks(memory, plan)


def test_birth_absence_return_and_death() -> None:
    rules = TrackRules(max_missed=2)
    memory, _ = step(TrackMemory.empty(CHANNELS, LOGITS), [True, False, True], rules)
    assert memory.ids.tolist() == [0, 1]
    # Track 0 is hidden, track 1 seen, one birth.
    memory, _ = step(memory, [False, True, False, True], rules)
    assert memory.ids.tolist() == [0, 1, 2]
    assert memory.missed.tolist() == [1, 0, 0]
    # Track 0 comes back: its counter starts again.
    memory, ended = step(memory, [True, False, True], rules)
    assert memory.missed.tolist() == [0, 1, 0]
    assert len(ended) == 0
    # Track 1 is missed for the second time in a row and ends; the ending frame is not its own.
    memory, ended = step(memory, [True, False, True, True], rules)
    assert memory.ids.tolist() == [0, 2, 3]
    assert ended.ids.tolist() == [1]
    assert ended.starts.tolist() == [0]
    assert ended.lengths.tolist() == [3]
    assert memory.lengths.tolist() == [4, 3, 1]
    assert memory.starts.tolist() == [0, 1, 3]


def test_mean_logits_count_hidden_frames() -> None:
    rules = TrackRules(max_missed=3)
    memory, _ = step(TrackMemory.empty(CHANNELS, LOGITS), [True], rules)
    for visible in ([False], [False], [True]):
        memory, _ = step(memory, visible, rules)
    assert memory.as_ended().logits.tolist() == [[1.0] * LOGITS]
    assert memory.logits_sum.tolist() == [[4.0] * LOGITS]


def test_all_but_the_ring_of_a_memory_is_left_alone() -> None:
    memory, _ = step(TrackMemory.empty(CHANNELS, LOGITS), [True, True], TrackRules())
    tensors = memory.logits_sum, memory.missed, memory.positions.positions, memory.positions.counts
    copies = [tensor.clone() for tensor in tensors]
    step(memory, [True, False, True], TrackRules())
    assert all(map(torch.equal, tensors, copies))
    assert memory.num_frames == 1


@pytest.mark.parametrize("with_gradients", [False, True])
def test_nobody_steps_twice_from_one_memory(with_gradients) -> None:
    with torch.set_grad_enabled(with_gradients):
        for visible in ([True, True], []):  # with tracks and without
            before, _ = step(TrackMemory.empty(CHANNELS, LOGITS), visible, TrackRules())
            step(before, visible, TrackRules())
            with pytest.raises(RuntimeError, match="go on with the memory that the step gave"):
                step(before, visible, TrackRules())
            assert len(before.as_ended()) == len(visible)  # what ended can still be read


@pytest.mark.parametrize(
    ("limit", "born"), [(-1, [0, 1, 2, 3]), (2, [1, 3]), (0, []), (9, [0, 1, 2, 3])]
)
def test_births_can_be_limited_to_the_best(limit, born) -> None:
    memory = TrackMemory.empty(CHANNELS, LOGITS)
    visible = torch.ones(4, dtype=torch.bool)
    scores = torch.tensor([0.5, 0.9, 0.4, 0.8])
    plan = plan_step(memory, visible, scores, TrackRules(max_births=limit))
    assert plan.kept.tolist() == born


def test_a_frame_without_anything() -> None:
    memory, ended = step(TrackMemory.empty(CHANNELS, LOGITS), [False, False], TrackRules())
    assert len(memory) == 0
    assert len(ended) == 0
    memory, _ = step(memory, [False, True], TrackRules())
    assert memory.ids.tolist() == [0]
    assert memory.starts.tolist() == [1]


def test_position_follows_what_looks_alike() -> None:
    """Against the rule written out for one track, over more frames than the window holds."""
    codes = torch.randn(25, CHANNELS) + 0.5
    seen = torch.rand(25) > 0.2
    seen[0] = True
    memory = PositionMemory.empty(1, CHANNELS, "cpu")
    history: list[torch.Tensor] = []
    position = torch.zeros(CHANNELS)
    for code, visible in zip(codes, seen, strict=True):
        memory = memory.update(code[None], visible[None])
        if visible:
            if history:
                recent = torch.stack(history[-9:])
                share = F.cosine_similarity(recent, code[None]).mean().clamp(min=0)
                position = (1 - share) * position + share * code
            else:
                position = code
            history.append(code)
        torch.testing.assert_close(memory.positions[0], position, atol=1e-5, rtol=1e-5)
    assert memory.counts.tolist() == [len(history)]


def test_position_lets_gradients_through() -> None:
    codes = torch.rand(2, 3, CHANNELS, requires_grad=True)
    memory = PositionMemory.empty(3, CHANNELS, "cpu")
    visible = torch.tensor([True, True, False])
    for code in codes:
        memory = memory.update(code, visible)
    memory.positions.square().sum().backward()
    assert (codes.grad[:, :2].abs().sum(-1) > 0).all()
    assert (codes.grad[:, 2] == 0).all()


def test_memory_is_bounded_by_the_live_tracks() -> None:
    memory, rules = TrackMemory.empty(CHANNELS, LOGITS), TrackRules(max_missed=1)
    for _ in range(40):
        memory, _ = step(memory, [False] * len(memory) + [True, True], rules)
    assert memory.next_id == 80
    assert len(memory) == 2
    assert [block.shape for block in memory.positions.recent] == [(2, 9, CHANNELS)]


def tracks_of(lengths: list[int], best: list[float]) -> EndedTracks:
    ids = torch.arange(len(lengths))
    logits = torch.tensor(best)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    positions = torch.arange(len(lengths))[:, None].expand(-1, CHANNELS).float()
    return EndedTracks(ids, ids * 0, torch.tensor(lengths), logits, positions)


def test_noise_and_best_tracks() -> None:
    tracks = tracks_of([1, 2, 3, 4], [4.0, 1.0, 3.0, 2.0])
    assert without_noise(tracks, TrackRules(min_length=3)).ids.tolist() == [2, 3]
    assert best_tracks(tracks, 2).ids.tolist() == [0, 2]
    assert best_tracks(tracks, 9).ids.tolist() == [0, 1, 2, 3]


def test_sequences_are_padded_with_the_last_position() -> None:
    tracks = tracks_of([2, 1], [1.0, 1.0]).rows(torch.tensor([0]))
    ones = torch.ones(2, CHANNELS)
    frames = [
        (torch.tensor([], dtype=torch.int64), ones[:0]),
        (torch.tensor([0, 1]), 5 * ones),
        (torch.tensor([1, 0]), 6 * ones),
    ]
    sequences = gather_sequences(tracks, frames)
    assert sequences.embeds[0, :, 0].tolist() == [0.0, 5.0, 6.0]
    assert sequences.padding.tolist() == [[True, False, False]]
    linked = gather_sequences(tracks_of([1, 1, 1], [0.0, 9.0, 8.0]), frames)
    filled = sequences.filled(linked, 3)
    assert filled.ids.tolist() == [0, 1, 2]
    assert len(sequences.filled(linked, 1)) == 1
    assert len(sequences.filled(linked, 9)) == 4


def test_foreground_score_ignores_no_object() -> None:
    logits = torch.tensor([[0.0, 0.0, 50.0], [9.0, 0.0, 0.0]])
    assert foreground_score(logits)[0] < 1e-6
    assert foreground_score(logits)[1] > 0.99
