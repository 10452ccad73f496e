"""Tracks by motion and by colour: gates, gaps, crossings, streams, and lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vidseg.config import load_config
from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.trackers import (
    ColourPseudoTracker,
    HungarianTracker,
    persistence_from_tracks,
    presence_of_tracks,
)

WHITE, RED, BLUE = (0.8, 0.8, 0.8), (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)
Row = tuple[int, float, float, tuple[float, float, float]]


def detections(rows: list[Row], num_frames: int = 8, height: int = 64) -> Detections:
    """Makes detections of rows (frame, y, x, colour), sorted by frame."""
    rows = sorted(rows, key=lambda row: row[0])
    zeros = torch.zeros(len(rows))
    return Detections(
        frame=torch.tensor([row[0] for row in rows], dtype=torch.int64),
        y=torch.tensor([row[1] for row in rows]),
        x=torch.tensor([row[2] for row in rows]),
        sigma=zeros + 2,
        response=zeros,
        brightness=zeros,
        circularity=zeros,
        confidence=zeros,
        color=torch.tensor([row[3] for row in rows]).reshape(-1, 3),
        num_frames=num_frames,
        size=(height, height),
    )


def moving(
    start: float, speed: float, frames: range | list[int], *, y: float = 20.0, color: object = WHITE
) -> list[Row]:
    return [(t, y, start + speed * t, color) for t in frames]  # type: ignore[misc]


def same_track(ids: Tensor, mask: Tensor) -> bool:
    return len(set(ids[mask].tolist())) == 1


def test_crossing_objects_keep_their_tracks_by_velocity() -> None:
    clip = detections([*moving(10, 2, range(8)), *moving(25, -2, range(8), y=21.0)])
    ids = HungarianTracker().track(clip)
    assert same_track(ids, clip.y == 20)
    assert same_track(ids, clip.y == 21)
    assert len(ids.unique()) == 2


def test_appearance_decides_where_motion_does_not() -> None:
    first = [(0, 20.0, 20.0, RED), (0, 20.0, 22.0, BLUE)]
    clip = detections([*first, (1, 20.0, 21.0, BLUE), (1, 21.0, 21.0, RED)], 2)
    ids = HungarianTracker(appearance_weight=0.5).track(clip)
    assert ids.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("missed", "linked"), [(1, True), (2, True), (3, False)])
def test_track_survives_as_long_as_the_gap_allows(missed: int, linked: bool) -> None:
    seen = [0, 1, 2 + missed, 3 + missed]
    ids = HungarianTracker(max_gap=3).track(detections(moving(10, 1.5, seen), 10))
    assert (ids[1] == ids[2]) == linked
    assert ids[2] == ids[3]


def test_gate_grows_by_half_with_every_missed_frame() -> None:
    def jump(missed: int, distance: float) -> bool:
        rows = [(0, 20.0, 20.0, WHITE), (1 + missed, 20.0, 20.0 + distance, WHITE)]
        ids = HungarianTracker(gate=3.0, max_gap=4).track(detections(rows))
        return bool(ids[0] == ids[1])

    for missed, gate in enumerate([3.0, 4.5, 6.0, 7.5]):
        assert jump(missed, gate - 0.01)
        assert not jump(missed, gate + 0.01)


def test_gate_is_a_share_of_the_frame_height() -> None:
    rows = [(0, 20.0, 20.0, WHITE), (1, 20.0, 25.0, WHITE)]
    assert HungarianTracker().track(detections(rows)).tolist() == [0, 1]
    assert HungarianTracker().track(detections(rows, height=128)).tolist() == [0, 0]
    stream = HungarianTracker(frame_height=128)
    assert [stream.update([[20.0, x]], [WHITE]).item() for x in (20.0, 25.0)] == [0, 0]


def test_stream_gives_the_tracks_of_the_whole_clip_and_forgets_the_dead() -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for _ in range(150):  # one object after another, over 300 frames
        start, length = int(rng.integers(0, 290)), int(rng.integers(1, 10))
        x, speed = rng.uniform(10, 50), rng.normal()
        y = float(rng.uniform(5, 60))
        rows += [(t, y, x + speed * (t - start), WHITE) for t in range(start, start + length)]
    clip = detections(rows, 300)
    tracker = HungarianTracker()
    parts, live = [], []
    for frame in range(300):
        at = clip.frame == frame
        parts.append(tracker.update(clip.centers[at], clip.color[at]))
        live.append(tracker.num_live)
    assert torch.equal(torch.cat(parts), tracker.track(clip))
    assert len(torch.cat(parts).unique()) > 100
    assert max(live) < 25
    tracker.reset()
    assert tracker.update([[1.0, 1.0]], [WHITE]).tolist() == [0]


def test_ids_follow_the_order_of_the_detections() -> None:
    clip = detections([*moving(10, 1, range(8)), *moving(40, 1, range(8), y=50.0)])
    mixed = torch.randperm(len(clip), generator=torch.Generator().manual_seed(0))
    ids, shuffled = (HungarianTracker().track(one) for one in (clip, clip.select(mixed)))
    pairs = {(int(a), int(b)) for a, b in zip(ids[mixed], shuffled, strict=True)}
    assert len(pairs) == 2


def test_empty_frames_and_empty_clips() -> None:
    tracker = HungarianTracker()
    none = tracker.update(np.zeros((0, 2)), np.zeros((0, 3)))
    assert none.shape == (0,)
    assert none.dtype == torch.int64
    assert tracker.track(detections([])).shape == (0,)
    assert persistence_from_tracks(none, 8, frames=none).shape == (0,)
    black = tracker.track(detections([(t, 5.0, 5.0, (0.0, 0.0, 0.0)) for t in range(3)]))
    assert black.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "wrong", [{"gate": 0.0}, {"gate": float("nan")}, {"appearance_weight": -1.0}, {"max_gap": 0}]
)
def test_refuses_what_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))} is "):
        HungarianTracker(**wrong)  # type: ignore[arg-type]


def test_white_objects_share_a_track_and_red_ones_do_not() -> None:
    rows = [
        *moving(10, 1, range(8)),
        *moving(50, -1, range(8), y=50.0),
        *moving(10, 1, range(3), y=35.0, color=RED),
        *moving(40, 1, range(2, 6), y=10.0, color=RED),
        *moving(30, 0, range(1), color=BLUE),
        *moving(30, 0, range(1), y=60.0, color=(0.1, 0.1, 0.1)),  # grey, but too dark
    ]
    clip = detections(rows)
    found = ColourPseudoTracker().track(clip)
    assert set(found.tracks[clip.y == 20].tolist()) == {1, -1}  # the blue one is at this height
    assert set(found.tracks[clip.y == 50].tolist()) == {1}
    assert {found.tracks[clip.y == y].unique().item() for y in (35, 10)} == {2, 3}
    white = found.tracks == 1
    assert set(found.instances[white].tolist()) == {0, 1}
    assert same_track(found.instances, clip.y == 50)
    assert found.num_unknown == 2
    assert (found.instances == -1).sum() == 2
    labels = persistence_from_tracks(found.tracks, 8, frames=clip.frame)
    assert torch.equal(labels == 1, white)


def test_share_of_frames_makes_a_track_persistent() -> None:
    clip = detections([*moving(10, 1, range(7)), *moving(40, 1, range(6), y=50.0)], 10)
    ids = torch.where(clip.y == 20, 4, 9)
    ids[0] = -1
    presence = presence_of_tracks(ids, 10, frames=clip.frame)
    assert presence[0] == 0
    assert torch.allclose(presence[(ids == 9)], torch.tensor(0.6))
    labels = persistence_from_tracks(ids, 10, min_presence=0.6, frames=clip.frame)
    assert labels.tolist()[0] == -1
    assert (labels[1:] == 1).all()
    assert (persistence_from_tracks(ids, 10, 0.7, frames=clip.frame)[1:] == 0).all()


def test_two_detections_of_a_track_in_a_frame_count_once() -> None:
    clip = detections([(0, 1.0, 1.0, WHITE), (0, 2.0, 2.0, WHITE)], 2)
    ids = torch.zeros(2, dtype=torch.int64)
    assert presence_of_tracks(ids, 2, frames=clip.frame).tolist() == [0.5, 0.5]


def test_settings_come_from_the_config() -> None:
    cfg = load_config(None, [], ["persistence"])
    cfg.MODEL.PERSISTENCE.TRACKER.GATE = 1.0
    tracker = HungarianTracker(**HungarianTracker.from_config(cfg))
    assert tracker.track(detections(moving(10, 1.5, range(3)))).tolist() == [0, 1, 2]
