"""The metrics of action segmentation: recorded cases bit by bit, and what those leave open."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from vidseg.projects.fact_clip.metrics import (
    OVERLAPS,
    VideoCounts,
    count_video,
    edit_score,
    find_segments,
    match_segments,
    pool,
    stretch,
    summary,
)

FOLDER = Path(__file__).parents[2] / "golden" / "fact" / "metrics"
CASES = json.loads((FOLDER / "outputs.json").read_text())
RESAMPLED = CASES.pop("resample")
NAMES = {"F1@0.10": "F1@10", "F1@0.25": "F1@25", "F1@0.50": "F1@50"}
NUM_CLASSES = 20


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "inputs.npz") as file:
        return dict(file)


def counts_of(name: str, inputs: dict[str, np.ndarray]) -> tuple[list[VideoCounts], list[int]]:
    background = inputs[f"{name}__bg"].tolist()
    number = sum(key.startswith(f"{name}__v") for key in inputs) // 2
    videos = [
        count_video(
            inputs[f"{name}__v{i}_pred"], inputs[f"{name}__v{i}_gt"], NUM_CLASSES, background
        )
        for i in range(number)
    ]
    return videos, background


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["metrics"]])
def test_recorded_metrics_bit_by_bit(name: str, inputs: dict[str, np.ndarray]) -> None:
    videos, background = counts_of(name, inputs)
    wanted = {NAMES.get(key, key): value for key, value in CASES[name]["metrics"].items()}
    assert summary(pool(videos, NUM_CLASSES), background) == wanted
    for row, numbers in enumerate(CASES[name]["tp_fp_fn"].values()):
        hits = sum(video.hits[row].sum() for video in videos)
        false = sum(video.predicted_segments.sum() for video in videos) - hits
        missed = sum(video.true_segments.sum() for video in videos) - hits
        assert [hits, false, missed] == numbers


def test_actions_where_there_is_only_background_are_wrong(inputs: dict[str, np.ndarray]) -> None:
    videos, background = counts_of("gt_background_only_pred_not", inputs)
    scores = summary(pool(videos, NUM_CLASSES), background)
    assert videos[0].predicted_segments.sum() > 0
    assert scores["F1@10"] == scores["F1@50"] == scores["Edit"] == 0
    assert math.isnan(scores["Acc"])


@pytest.mark.parametrize("length", [50, 71])
def test_recorded_stretching(length: int, inputs: dict[str, np.ndarray]) -> None:
    stretched = stretch(inputs["resample__label"], length)
    assert stretched.tolist() == RESAMPLED[f"expand_to_{length}"]


def levenshtein(one: list[int], other: list[int]) -> int:
    """The distance by its definition."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def hits_by_definition(prediction: np.ndarray, truth: np.ndarray, overlap: float) -> set[int]:
    """True segments that are found, one predicted segment after the other."""
    mine, theirs = find_segments(prediction), find_segments(truth)
    found = set()
    for action, start, stop in zip(*mine, strict=True):
        ious = []
        for other, begin, end in zip(*theirs, strict=True):
            shared = max(0, min(stop, end) - max(start, begin))
            ious.append((other == action) * shared / (max(stop, end) - min(start, begin)))
        if max(ious) >= overlap:
            found.add(int(np.argmax(ious)))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_edit_and_segments_agree_with_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 120))
    truth, prediction = (
        np.repeat(rng.integers(0, 4, length), rng.integers(1, 9, length))[:length] for _ in range(2)
    )
    prediction = np.where(rng.random(length) < 0.6, truth, prediction)
    mine, theirs = find_segments(prediction), find_segments(truth)
    found = match_segments(mine, theirs)
    for row, overlap in zip(found, OVERLAPS, strict=True):
        assert set(np.flatnonzero(row)) == hits_by_definition(prediction, truth, overlap)
    distance = levenshtein(mine.classes.tolist(), theirs.classes.tolist())
    longest = max(len(mine.classes), len(theirs.classes))
    assert edit_score(mine.classes, theirs.classes) == (1 - distance / longest) * 100


def test_frames_without_a_true_class_are_left_out_and_cut_segments() -> None:
    truth = np.array([1, 1, -100, -100, 1, 1, 2, 2])
    prediction = np.array([1, 1, 2, 2, 1, 1, 2, 2])
    counts = count_video(prediction, truth, 3)
    assert counts.true_segments.tolist() == counts.predicted_segments.tolist() == [0, 2, 1]
    scores = summary(counts)
    assert scores["AccB"] == scores["Edit"] == 100


def test_frames_without_a_predicted_class_are_wrong_and_no_segment() -> None:
    counts = count_video([-1, -1, 1, 1], [0, 0, 1, 1], 2, background=[0])
    assert counts.predicted_segments.tolist() == [0, 1]
    scores = summary(counts, background=[0])
    assert (scores["Acc"], scores["AccB"]) == (100, 50)


def test_background_that_is_removed_leaves_equal_neighbours_apart() -> None:
    counts = count_video([1, 0, 1, 1], [1, 1, 1, 1], 2, background=[0])
    assert counts.predicted_segments.tolist() == [0, 2]
    assert counts.edit == 50


def test_nothing_to_score() -> None:
    nothing = summary(pool([], 3))
    assert [math.isnan(value) for value in nothing.values()] == [True] * 3 + [False] * 3
    assert math.isnan(edit_score([], []))
    empty = count_video([], [], 3)
    assert empty.true_frames.sum() == empty.hits.sum() == 0
