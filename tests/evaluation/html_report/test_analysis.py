"""States of tracks in hand-made videos in which every state occurs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidseg import rle
from vidseg.evaluation.html_report.analysis import Confusions, confusions, overlaps
from vidseg.evaluation.html_report.track_videos import TrackVideos
from vidseg.evaluation.tracking import score_tracking

CASES = Path(__file__).parents[2] / "golden" / "ytvis_eval"
PLACES = {"A": 0, "B": 10, "C": 20, "a": 3}  # left edge of a box; `a` overlaps A by 7 / 13


def masks(places: str) -> list[Any]:
    """Gives a track from a letter per frame: a box 10 pixels wide there, or none at a dot."""
    frames: list[Any] = []
    for place in places:
        if place == ".":
            frames.append(None)
            continue
        mask = np.zeros((4, 40), dtype=bool)
        mask[:, PLACES[place] : PLACES[place] + 10] = True
        frames.append(rle.encode(mask))
    return frames


def compare(
    truth: list[str], found: list[str], *, classes: str = "", crowds: tuple[int, ...] = ()
) -> Confusions:
    """Compares tracks; `classes` has a letter for each, annotated ones first."""
    classes = classes or "k" * (len(truth) + len(found))
    return confusions(
        overlaps(list(map(masks, truth)), list(map(masks, found)), len(truth[0])),
        truth_classes=classes[: len(truth)],
        found_classes=classes[len(truth) :],
        is_crowd=[number in crowds for number in range(len(truth))],
    )


def words(states: np.ndarray) -> list[str]:
    return ["".join(row) for row in states]


def test_a_track_that_is_followed_missed_and_absent() -> None:
    states = compare([".AAAAA."], ["..AA.BB"])
    assert words(states.truth) == [".mffmm."]
    assert words(states.found) == ["..ff.xx"]
    assert states.partners == [0]
    assert states.counts() == {"missed": 3, "switched": 0, "false": 2}


def test_another_prediction_takes_over_and_hands_back() -> None:
    states = compare(["AAAAAAAA"], ["AAA...AA", "...A.A.."])
    assert words(states.truth) == ["fffsmsff"]
    assert words(states.found) == ["fff...ff", "...s.s.."]
    assert states.partners == [0, None]
    assert states.counts() == {"missed": 1, "switched": 2, "false": 0}


def test_two_predictions_exchange_their_objects() -> None:
    states = compare(["AAAAA", "BBBBB"], ["AAABB", "BBBAA"])
    assert words(states.truth) == ["fffss", "fffss"]
    assert words(states.found) == ["fffss", "fffss"]
    assert states.partners == [0, 1]


def test_the_better_of_two_predictions_is_chosen_unless_the_other_was_there_before() -> None:
    assert words(compare(["AA"], ["aa", "AA"]).found) == ["xx", "ff"]
    assert words(compare(["AA"], ["aa", ".A"]).found) == ["ff", ".x"]


def test_partners_are_mutual_and_meet_as_often_as_possible() -> None:
    states = compare(["AAA..", "..BBB"], ["AABBB"])
    assert words(states.truth) == ["ssm..", "..fff"]
    assert words(states.found) == ["ssfff"]
    assert states.partners == [1]
    # the first prediction is on A for longer, but only it ever is on B
    states = compare(["AAAAA..", ".....BB"], ["AAA..BB", "...AA.."])
    assert words(states.truth) == ["sssff..", ".....ff"]
    assert words(states.found) == ["sss..ff", "...ff.."]
    assert states.partners == [1, 0]


def test_classes_do_not_meet() -> None:
    states = compare(["AA", "BB"], ["AA", "BB"], classes="kkkl")
    assert words(states.truth) == ["ff", "mm"]
    assert words(states.found) == ["ff", "xx"]
    assert states.partners == [0, None]


def test_crowds_are_hit_by_any_number_and_never_missed() -> None:
    states = compare(["AA.A", "AA.."], ["AA.A", "AAB."], crowds=(0,))
    assert words(states.truth) == ["ff.f", "ff.."]
    assert words(states.found) == ["ff.f", "ffx."]
    assert states.partners == [1, 0]
    assert compare(["AAAA"], ["AAA.", ".AAA"], crowds=(0,)).partners == [0, 0]
    assert compare(["AAAA"], ["...."], crowds=(0,)).counts()["missed"] == 0


def test_overlap_of_half_counts_and_less_does_not() -> None:
    small, large = np.zeros((2, 8), bool), np.zeros((2, 8), bool)
    large[:, :8], small[:, :4] = True, True
    sequence = overlaps([[rle.encode(large)]], [[rle.encode(small)]], 1)
    assert sequence.overlaps[0, 0, 0] == 0.5
    kwargs: dict[str, Any] = {"truth_classes": "k", "found_classes": "k", "is_crowd": [False]}
    assert words(confusions(sequence, **kwargs).truth) == ["f"]
    small[:, 3] = False
    sequence = overlaps([[rle.encode(large)]], [[rle.encode(small)]], 1)
    assert words(confusions(sequence, **kwargs).truth) == ["m"]


def test_masks_without_pixels_beyond_the_end_or_of_another_size() -> None:
    nothing = rle.encode(np.zeros((4, 40), bool))
    other = rle.encode(np.ones((4, 20), bool))
    box = masks("A")[0]
    sequence = overlaps([[box, nothing, box, box]], [[box, box], [other] * 4], 3)
    states = confusions(
        sequence, truth_classes="k", found_classes="kk", is_crowd=[False]
    )  # fmt: skip
    assert words(states.truth) == ["f.m"]
    assert words(states.found) == ["fx.", "xxx"]


def test_nothing_at_all() -> None:
    states = confusions(overlaps([], [], 3), truth_classes="", found_classes="", is_crowd=[])
    assert states.truth.shape == states.found.shape == (0, 3)
    assert states.counts() == {"missed": 0, "switched": 0, "false": 0}
    assert words(compare(["AA"], []).truth) == ["mm"]


@pytest.mark.parametrize("case", ["random_small", "crowd", "score_ties", "null_frames", "fuzz_03"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_sums_are_those_of_clear(case: str, class_agnostic: bool) -> None:
    gt, results = (
        json.loads((CASES / case / f"{name}.json").read_text()) for name in ("gt", "results")
    )
    scores = score_tracking(gt, results, class_agnostic=class_agnostic)
    tracks = TrackVideos.load(gt, results, class_agnostic=class_agnostic, min_score=-np.inf)
    tracks.forget_crowds()
    for video_id, clear in scores.per_video.items():
        states = tracks.confusions(video_id)
        assert states.counts() == {
            "missed": clear["CLR_FN"],
            "switched": int((states.found == "s").sum()),
            "false": clear["CLR_FP"],
        }
        found = int((states.truth == "f").sum())
        assert found + states.counts()["switched"] == clear["CLR_TP"]
        assert found <= clear["IDTP"]
