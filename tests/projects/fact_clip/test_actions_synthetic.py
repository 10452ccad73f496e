"""The generated actions: deterministic, compositional, and too hard for single frames."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from vidseg.data import DatasetCatalog
from vidseg.errors import DataError
from vidseg.projects.fact_clip import actions_synthetic
from vidseg.projects.fact_clip.actions_grammar import (
    ACTIONS,
    CLASSES,
    NOUNS,
    PSEUDO_UNSEEN,
    UNSEEN,
    VERBS,
    write_transcript,
)
from vidseg.projects.fact_clip.actions_synthetic import _make_video, generate_actions


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the splits small, in a cache of their own."""
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path))
    for number, split in enumerate(("train", "val", "test")):
        size = actions_synthetic._Split(number + 1, 5)
        monkeypatch.setitem(actions_synthetic._SPLITS, split, size)
    return tmp_path / f"actions_synthetic-v{actions_synthetic._VERSION}"


def test_catalog_generates_on_first_use(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = DatasetCatalog.metadata("actions_synthetic_val")
    assert (known.classes, known.feature_dim) == (CLASSES, 64)
    assert known.evaluator == "action_segmentation"
    assert not small.exists()  # all of this is known without it
    with caplog.at_level("INFO"):
        records = DatasetCatalog.get("actions_synthetic_val")
    assert f"generating actions_synthetic_val in {small / 'val'}" in caplog.text
    assert [record["video_id"] for record in records] == [f"val_00{i}" for i in range(5)]
    assert {record["frame_rate"] for record in records} == {10.0}
    assert all(len(record["labels"]) == record["length"] for record in records)
    assert DatasetCatalog.metadata("actions_synthetic_val").classes == CLASSES
    times = {path: path.stat().st_mtime_ns for path in (small / "val").rglob("*")}
    DatasetCatalog.get("actions_synthetic_val")
    assert {path: path.stat().st_mtime_ns for path in (small / "val").rglob("*")} == times


def test_damage_tells_the_way_out(small: Path) -> None:
    DatasetCatalog.get("actions_synthetic_test")
    (small / "test" / "features" / "test_003.npy").unlink()
    says = r"test_003\.npy is missing; .*; remove .*test to have it generated again"
    with pytest.raises(DataError, match=says):
        DatasetCatalog.get("actions_synthetic_test")
    (small / "test" / "splits" / "test.bundle").unlink()
    with pytest.raises(DataError, match=r"test\.bundle is missing; remove .* generated again"):
        DatasetCatalog.get("actions_synthetic_test")


def test_same_seed_gives_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate_actions(tmp_path / name, split="train", seed=seed, num_videos=2)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 6  # two of features, two of labels, mapping, split
    assert all(
        (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        for file in files
    )
    videos = [
        np.load(tmp_path / name / "features" / f"train_00{number}.npy")
        for name in "ac"
        for number in (0, 1)
    ]
    assert len({video.tobytes() for video in videos}) == 4


@pytest.mark.parametrize("held_out", [UNSEEN, UNSEEN + PSEUDO_UNSEEN])
def test_every_verb_and_noun_of_a_held_out_class_occurs_in_seen_ones(held_out: list[str]) -> None:
    assert set(held_out) <= set(CLASSES)
    assert len(set(held_out)) == len(held_out)
    seen = [pair for pair in ACTIONS if "_".join(pair) not in held_out]
    assert {verb for verb, _ in seen} == set(VERBS)
    assert {noun for _, noun in seen} == set(NOUNS)


def test_transcripts_follow_the_grammar() -> None:
    lengths = []
    for seed in range(200):
        segments = write_transcript(np.random.default_rng(seed))
        labels = [segment.label for segment in segments]
        assert all(a != b for a, b in itertools.pairwise(labels))
        assert all(segment.num_frames >= 8 for segment in segments)
        actions = [(VERBS[s.verb], NOUNS[s.noun]) for s in segments if s.label]
        assert len(set(actions)) == len(actions)
        for noun in {noun for _, noun in actions}:  # the steps of an ingredient keep their order
            steps = [verb for verb, other in actions if other == noun]
            order = "take wash cut place" if "place" in steps else "take open pour stir"
            assert steps == sorted(steps, key=order.split().index)
            assert steps[0] == "take"
        lengths.append(len(segments))
    assert min(lengths) < 9
    assert max(lengths) > 18


def test_every_class_occurs() -> None:
    found = set()
    for number in range(60):
        found.update(_make_video(np.random.default_rng((1, 1, number)))[1].tolist())
    assert found == set(range(len(CLASSES)))


def test_single_frames_mislead_and_their_neighbours_help() -> None:
    """The nearest class mean is often wrong for a frame, less so for the mean of a segment."""
    train = [_make_video(np.random.default_rng((1, 1, number))) for number in range(80)]
    test = [_make_video(np.random.default_rng((1, 3, number))) for number in range(20)]
    features = np.concatenate([video for video, _ in train])
    labels = np.concatenate([label for _, label in train])
    means = np.stack([features[labels == c].mean(0) for c in range(len(CLASSES))])

    def nearest(rows: np.ndarray) -> np.ndarray:
        return np.square(rows[:, None] - means).sum(-1).argmin(1)

    frames, segments, changes = [], [], []
    for video, label in test:
        frames.append(nearest(video) == label)
        starts = np.flatnonzero(np.r_[True, label[1:] != label[:-1]])
        sums = np.add.reduceat(video, starts) / np.diff(np.r_[starts, len(label)])[:, None]
        segments.append(nearest(sums) == label[starts])
        changes.append(np.mean(np.diff(nearest(video)) != 0) / np.mean(np.diff(label) != 0))
    assert np.concatenate(frames).mean() < 0.75
    assert np.concatenate(segments).mean() > 0.9
    assert np.mean(changes) > 5  # a frame-wise labelling falls into pieces
