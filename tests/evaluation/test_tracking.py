"""HOTA, CLEAR and Identity against recorded figures, against TrackEval, and by hand."""

from __future__ import annotations

import json
import sys
from math import sqrt
from typing import Any

import numpy as np
import pytest

from tests.golden_utils import GOLDEN
from vidseg import rle
from vidseg.errors import DataError, UserError
from vidseg.evaluation.tracking import BACKENDS, score_tracking
from vidseg.evaluation.tracking_metrics import (
    TrackedSequence,
    clear_metrics,
    count_clear,
    count_hota,
    count_identity,
    hota_curves,
    hota_metrics,
    identity_metrics,
)

CASES = ["random_small", "crowd", "null_frames", "polygons_and_uncompressed", "random_medium_areas"]
FAMILIES = ("HOTA", "CLEAR", "Identity")
COUNTS = ("CLR_TP", "CLR_FN", "CLR_FP", "CLR_Frames", "IDSW", "Frag", "IDTP", "IDFN", "IDFP")
# Sums that the reference reports beside its figures; the curves of HOTA are compared below.
UNREPORTED = {"MOTP_sum", "HOTA_TP", "HOTA_FN", "HOTA_FP"}


def load(case: str, name: str) -> Any:
    folder = "trackeval" if name == "expected" else "ytvis_eval"
    return json.loads((GOLDEN / folder / case / f"{name}.json").read_text())


def recorded(families: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {
        name: value["mean"] if isinstance(value, dict) else value
        for family in FAMILIES
        for name, value in families[family].items()
        if name not in UNREPORTED
    }


def assert_same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_recorded_figures_of_a_set(case: str) -> None:
    expected = {name: recorded(part) for name, part in load(case, "expected")["combined"].items()}
    scores = score_tracking(load(case, "gt"), load(case, "results"), strict=True)
    assert_same(scores.class_averaged, expected.pop("cls_comb_cls_av"))
    assert_same(scores.detection_averaged, expected.pop("cls_comb_det_av"))
    assert scores.per_class.keys() == expected.keys()
    for name, figures in expected.items():
        assert_same(scores.per_class[name], figures)


@pytest.mark.parametrize("case", CASES)
def test_recorded_figures_of_one_class_in_one_video(case: str) -> None:
    truth, results = load(case, "gt"), load(case, "results")
    expected = load(case, "expected")["per_sequence"]
    for video, category in np.ndindex(len(truth["videos"]), len(truth["categories"])):
        key = {"video_id": video + 1, "category_id": category + 1}

        def own(tracks: list[Any], key: dict[str, int] = key) -> list[Any]:
            return [one for one in tracks if key.items() <= one.items()]

        part = truth | {"annotations": own(truth["annotations"])}
        scores = score_tracking(part, own(results), strict=True)
        name = truth["categories"][category]["name"]
        figures, found = recorded(expected[f"v{video + 1:04}"][name]), scores.detection_averaged
        if not figures["CLR_Frames"]:  # one side is empty, and ratios are not worked out there
            figures = {key: figures[key] for key in COUNTS}
            found = {key: found[key] for key in COUNTS}
        assert_same(found, figures)


def test_masks_without_pixels_are_no_detections_unless_strict() -> None:
    truth, results = load("null_frames", "gt"), load("null_frames", "results")
    nulls = [
        one | {"segmentations": [m and (m if rle.area(m) else None) for m in one["segmentations"]]}
        for one in results
    ]
    assert nulls != results
    sane = score_tracking(truth, results)
    assert sane == score_tracking(truth, nulls, strict=True)
    assert sane.detection_averaged["IDF1"] > 0.55
    assert score_tracking(truth, results, strict=True).detection_averaged["IDF1"] < 0.46


def sequence(ours: list[list[int]], overlap: float = 1.0) -> TrackedSequence:
    """Two annotated tracks, and which predicted track covers each in every frame, -1 none."""
    overlaps = np.zeros((len(ours), 2, 1 + max(map(max, ours))))
    for frame, row in enumerate(ours):
        for track, found in enumerate(row):
            if found >= 0:
                overlaps[frame, track, found] = overlap
    return TrackedSequence(overlaps, np.ones((len(ours), 2), bool), overlaps.any(1))


def test_a_swap_of_identities_by_hand() -> None:
    one = sequence([[0, 1], [0, 1], [1, 0], [1, 0]])
    clear = count_clear(one)
    assert (clear["IDSW"], clear["Frag"], clear["MT"]) == (2, 0, 2)
    figures = clear_metrics(clear)
    assert (figures["MOTA"], figures["MODA"]) == (6 / 8, 1)
    assert figures["MOTAL"] == pytest.approx(1 - np.log10(2) / 8)
    # each pair agrees in 2 of the 6 frames that either has to itself or shares
    hota = hota_metrics(count_hota(one))
    assert hota["DetA"] == 1
    assert hota["AssA"] == pytest.approx(2 / 6)
    assert hota["HOTA"] == pytest.approx(sqrt(2 / 6))
    assert identity_metrics(count_identity(one))["IDF1"] == 0.5


def test_a_gap_is_a_fragment_and_a_new_name_a_switch() -> None:
    counts = count_clear(sequence([[0, 1], [0, -1], [0, 1], [0, -1], [0, 2]]))
    assert (counts["Frag"], counts["IDSW"], counts["CLR_FN"]) == (2, 1, 2)
    assert (counts["MT"], counts["PT"], counts["ML"]) == (1, 1, 0)


def test_a_track_goes_on_with_its_match_though_another_fits_better() -> None:
    overlaps = np.array([[[0.9, 0.0]], [[0.6, 0.8]]])
    one = TrackedSequence(overlaps, np.ones((2, 1), bool), np.array([[1, 0], [1, 1]], bool))
    counts = count_clear(one)
    assert counts["IDSW"] == 0
    assert counts["MOTP_sum"] == pytest.approx(1.5)


@pytest.mark.parametrize(("overlap", "hits"), [(0.5, 8), (0.4999, 0)])
def test_equality_with_a_threshold_is_a_match(overlap: float, hits: int) -> None:
    one = sequence([[0, 1]] * 4, overlap)
    assert count_clear(one)["CLR_TP"] == count_identity(one)["IDTP"] == hits
    curves = hota_curves(count_hota(one))
    assert (curves["DetA"] > 0).sum() == (10 if hits else 9)


def truth_of(mask: Any, *, length: int = 2) -> dict[str, Any]:
    video = {"id": 1, "width": 4, "height": 4, "length": length, "file_names": []}
    track = {"id": 1, "video_id": 1, "category_id": 1, "areas": [4], "segmentations": [mask]}
    classes = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"videos": [video], "categories": classes, "annotations": [track]}


def found_of(mask: Any, *, score: float = 0.9, category: int = 1, length: int = 1) -> list[Any]:
    one = {"video_id": 1, "category_id": category, "score": score}
    return [one | {"segmentations": [mask] * length}]


SQUARE = rle.to_text(rle.encode(np.pad(np.ones((2, 2), bool), 1)))


def test_options_choose_tracks_and_classes() -> None:
    truth = truth_of(SQUARE)
    both = found_of(SQUARE) + found_of(SQUARE, score=0.1, category=2)
    assert score_tracking(truth, both).per_class.keys() == {"cat", "dog"}
    assert score_tracking(truth, both).class_averaged["HOTA"] == 0.5
    assert score_tracking(truth, both, min_score=0.5).class_averaged["HOTA"] == 1
    merged = score_tracking(truth, found_of(SQUARE, category=2), class_agnostic=True)
    assert merged.per_class["all classes"] == merged.per_video[1] == merged.class_averaged
    assert merged.class_averaged["HOTA"] == 1


def test_scores_below_zero_count_and_lengths_may_be_missing() -> None:
    truth = truth_of(SQUARE)
    assert score_tracking(truth, found_of(SQUARE, score=-3)).class_averaged["HOTA"] == 1
    for key in ("length", "file_names"):
        truth["videos"][0].pop(key)
    assert score_tracking(truth, found_of(SQUARE, length=2)).class_averaged["CLR_Frames"] == 2


def test_classes_of_one_name_are_told_apart() -> None:
    truth = truth_of(SQUARE)
    truth["categories"][1]["name"] = "cat"
    both = found_of(SQUARE) + found_of(SQUARE, category=2)
    figures = score_tracking(truth, both).per_class
    assert {name: one["HOTA"] for name, one in figures.items()} == {"cat (1)": 1, "cat (2)": 0}


def test_unknown_classes_are_left_out() -> None:
    truth = truth_of(SQUARE)
    truth["annotations"].append(truth["annotations"][0] | {"id": 2, "category_id": 9})
    for class_agnostic in (False, True):
        found = found_of(SQUARE) + found_of(SQUARE, category=9)
        scores = score_tracking(truth, found, class_agnostic=class_agnostic)
        assert scores.detection_averaged["HOTA"] == scores.per_video[1]["HOTA"] == 1


def test_nothing_found_and_nothing_annotated() -> None:
    missed = score_tracking(truth_of(SQUARE), []).detection_averaged
    assert (missed["HOTA"], missed["MOTA"], missed["CLR_FN"], missed["ML"]) == (0, 0, 1, 1)
    empty = truth_of(SQUARE) | {"annotations": []}
    assert score_tracking(empty, found_of(SQUARE)).detection_averaged["CLR_FP"] == 1
    assert score_tracking(empty, []).detection_averaged["IDF1"] == 0


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (found_of(SQUARE, length=3), "entry 0, video 1: a track has 3 masks, the video 2 frames"),
        (found_of({"size": [2, 2], "counts": "04"}), "video 1: masks of 2x2 and 4x4 pixels"),
        (found_of({"size": [4, 4], "counts": "04"}), "entry 0, video 1, frame 0: an RLE is damag"),
    ],
)
def test_masks_that_do_not_fit(results: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=f"the results(:|,) {message}"):
        score_tracking(truth_of(SQUARE), results)


def random_sequence(seed: int) -> TrackedSequence:
    generator = np.random.default_rng(seed)
    frames, truth, found = generator.integers(1, 12), *generator.integers(1, 6, 2)
    in_truth = generator.random((frames, truth)) < 0.8
    in_found = generator.random((frames, found)) < 0.8
    overlaps = generator.random((frames, truth, found)) ** generator.choice([0.3, 1, 3])
    overlaps *= in_truth[:, :, None] * in_found[:, None]
    return TrackedSequence(
        overlaps[:, in_truth.any(0)][:, :, in_found.any(0)],
        in_truth[:, in_truth.any(0)],
        in_found[:, in_found.any(0)],
    )


@pytest.mark.parametrize("seed", range(60))
def test_figures_are_those_of_trackeval(seed: int) -> None:
    metrics = pytest.importorskip("trackeval.metrics", reason="pip install vidseg[eval]")
    from vidseg.evaluation.trackeval_adapter import _in_memory

    one = random_sequence(seed)
    data = _in_memory(one)
    quiet = {"PRINT_CONFIG": False}
    expected = metrics.HOTA(quiet).eval_sequence(data)
    for name, curve in hota_curves(count_hota(one)).items():
        assert curve == pytest.approx(expected[name], abs=1e-12), name
    for figures, family in (
        (clear_metrics(count_clear(one)) | count_clear(one), metrics.CLEAR(quiet)),
        (identity_metrics(count_identity(one)) | count_identity(one), metrics.Identity(quiet)),
    ):
        expected = family.eval_sequence(data)
        assert figures == pytest.approx({name: expected[name] for name in figures}, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_trackeval_gives_the_same_figures(case: str) -> None:
    pytest.importorskip("trackeval", reason="pip install vidseg[eval]")
    gt, results = load(case, "gt"), load(case, "results")
    ours, theirs = (score_tracking(gt, results, backend=name) for name in BACKENDS)
    for part in ("class_averaged", "detection_averaged"):
        assert_same(getattr(ours, part), getattr(theirs, part))
    for part in ("per_class", "per_video"):
        assert getattr(ours, part).keys() == getattr(theirs, part).keys()
        for name, figures in getattr(theirs, part).items():
            assert_same(getattr(ours, part)[name], figures)
    nothing = score_tracking({**gt, "annotations": []}, [], backend="trackeval")
    assert nothing.detection_averaged["HOTA"] == 0


@pytest.fixture
def without_trackeval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackeval", None)


@pytest.mark.usefixtures("without_trackeval")
def test_trackeval_is_an_extra() -> None:
    with pytest.raises(UserError, match=r"cannot be used: .*; pip install 'vidseg\[eval\]'"):
        score_tracking(truth_of(SQUARE), [], backend="trackeval")
