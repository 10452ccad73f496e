"""Parity with the official evaluators: arrays bit for bit, means to 1e-12."""

import copy
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidseg import rle
from vidseg.errors import DataError
from vidseg.evaluation import evaluate_ytvis, score_ytvis
from vidseg.evaluation.tube_iou import Tubes, tube_ious
from vidseg.evaluation.ytvis_files import Track, load_ground_truth, load_results

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDER = GOLDEN / "ytvis_eval"
CASES = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())
OVIS_CASES = [name for name in CASES if (FOLDER / name / "expected_ovis.json").exists()]


def read(name: str, file: str) -> Any:
    return json.loads((FOLDER / name / file).read_bytes())


def known_results(name: str) -> list[dict[str, Any]]:
    videos = {video["id"] for video in read(name, "gt.json")["videos"]}
    return [one for one in read(name, "results.json") if one["video_id"] in videos]


def by_group(tracks: list[Track]) -> dict[tuple[int, int], list[Track]]:
    groups: dict[tuple[int, int], list[Track]] = {}
    for track in tracks:
        groups.setdefault((track.video_id, track.category_id), []).append(track)
    return groups


def assert_stats(actual: dict[str, float], expected: dict[str, float]) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        if value == -1:
            assert math.isnan(actual[name]), name
        else:
            assert actual[name] == pytest.approx(value, rel=0, abs=1e-12), name


def test_there_are_cases() -> None:
    assert len(CASES) >= 31
    assert OVIS_CASES == ["ovis_areas", "ovis_occlusion"]


@pytest.mark.parametrize("name", CASES)
def test_arrays_and_metrics_are_the_official_ones(name: str) -> None:
    expected = read(name, "expected.json")
    scores = score_ytvis(FOLDER / name / "gt.json", known_results(name), strict=True)
    with np.load(FOLDER / name / "expected_arrays.npz") as arrays:
        for key in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(getattr(scores, key), arrays[key])
    assert_stats(scores.summary(), expected["stats"])
    assert scores.category_ids == [one["category_id"] for one in expected["per_category"]]
    for index, one in enumerate(expected["per_category"]):
        named = {metric.name: scores.value(metric, category=index) for metric in scores.metrics}
        keys = ("AP", "AP50", "AP75", "AR100")
        undefined = {key: -1 if one[key] is None else one[key] for key in keys}
        assert_stats({key: named[key] for key in keys}, undefined)


@pytest.mark.parametrize("name", CASES)
def test_classes_can_be_merged(name: str) -> None:
    expected = read(name, "expected.json").get("class_agnostic")
    if expected is None:
        pytest.skip("the official evaluator was not run that way")
    actual = evaluate_ytvis(
        read(name, "gt.json"), known_results(name), class_agnostic=True, strict=True
    )
    assert_stats(actual, expected)


@pytest.mark.parametrize("name", CASES)
def test_tube_ious_are_the_official_ones(name: str) -> None:
    truth = load_ground_truth(FOLDER / name / "gt.json")
    annotated = by_group(truth.tracks)
    predicted = by_group(load_results(known_results(name), truth))
    with np.load(FOLDER / name / "expected_arrays.npz") as arrays:
        for key in arrays.files:
            if key.startswith("iou/"):
                video, category = map(int, key.split("/")[1:])
                ours = predicted.get((video, category), [])
                ours = sorted(ours, key=lambda track: -track.score)[:100]
                theirs = annotated.get((video, category), [])
                sides = [
                    Tubes.from_masks([track.masks for track in side]) for side in (ours, theirs)
                ]
                np.testing.assert_array_equal(tube_ious(*sides), arrays[key], err_msg=key)


@pytest.mark.parametrize("name", OVIS_CASES)
def test_occlusion_levels_are_the_official_ones(name: str) -> None:
    scores = score_ytvis(FOLDER / name / "gt.json", FOLDER / name / "results.json", occlusion=True)
    with np.load(FOLDER / name / "expected_ovis_arrays.npz") as arrays:
        for key in arrays.files:
            np.testing.assert_array_equal(getattr(scores, key), arrays[key])
    assert_stats(scores.summary(), read(name, "expected_ovis.json")["stats"])


def test_video_ap_of_the_published_code() -> None:
    folder = GOLDEN / "dvis_daq_training" / "video_ap"
    scores = score_ytvis(folder / "annotations_file.json", folder / "results.json", occlusion=True)
    with np.load(folder / "outputs.npz") as arrays:
        stats = np.nan_to_num(list(scores.summary().values()), nan=-1)
        # the recorded order: AP, AP50, AP75, areas, occlusions, then the recalls alike
        np.testing.assert_allclose(stats, arrays["stats"], atol=1e-6)
        per_class = list(scores.per_class().values())
        np.testing.assert_allclose(per_class, arrays["ap_per_class"], atol=1e-6)
    truth = load_ground_truth(folder / "annotations_file.json")
    predicted = by_group(load_results(folder / "results.json", truth))
    annotated = by_group(truth.tracks)
    for key, expected in json.loads((folder / "iou.json").read_text()).items():
        video, category = map(int, key.split("_"))
        ours = sorted(predicted[video, category], key=lambda track: -track.score)
        theirs = annotated[video, category]
        sides = [Tubes.from_masks([track.masks for track in side]) for side in (ours, theirs)]
        np.testing.assert_allclose(tube_ious(*sides), expected, atol=1e-6)


def test_annotation_id_zero_is_like_any_other_unless_strict(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gt, results = read("gt_id_zero", "gt.json"), read("gt_id_zero", "results.json")
    shifted = copy.deepcopy(gt)
    for annotation in shifted["annotations"]:
        annotation["id"] += 1
    with caplog.at_level(logging.WARNING):
        sane = evaluate_ytvis(gt, results)
    assert "id 0" in caplog.text
    assert_equal(sane, evaluate_ytvis(shifted, results, strict=True))
    assert sane["AP"] > evaluate_ytvis(gt, results, strict=True)["AP"]


def test_an_unknown_video_is_refused() -> None:
    with pytest.raises(DataError, match=r"video_id 777, which is not in .*gt\.json; do"):
        evaluate_ytvis(
            FOLDER / "unknown_video" / "gt.json", FOLDER / "unknown_video" / "results.json"
        )


def test_nothing_predicted_is_zero_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = evaluate_ytvis(read("no_predictions", "gt.json"), [])
    assert "no predictions of known classes" in caplog.text
    assert (metrics["AP"], metrics["AR100"]) == (0, 0)
    assert math.isnan(metrics["APl"])


@pytest.mark.parametrize("name", ["fuzz_03", "ovis_occlusion", "polygons_and_uncompressed"])
def test_inputs_are_not_modified_and_paths_read_alike(name: str) -> None:
    gt, results = read(name, "gt.json"), read(name, "results.json")
    before = copy.deepcopy((gt, results))
    from_memory = evaluate_ytvis(gt, results)
    assert (gt, results) == before
    folder = FOLDER / name
    assert_equal(evaluate_ytvis(str(folder / "gt.json"), folder / "results.json"), from_memory)


@pytest.mark.parametrize("name", ["fuzz_02", "mixed_sizes", "null_frames", "score_ties"])
def test_the_order_of_videos_does_not_matter(name: str) -> None:
    gt, results = read(name, "gt.json"), read(name, "results.json")
    expected = score_ytvis(gt, results)
    # stable: the order within a video decides between equal scores
    turned = sorted(results, key=lambda one: -one["video_id"])
    gt["videos"].reverse()
    gt["categories"].reverse()
    gt["annotations"].sort(key=lambda one: -one["video_id"])
    actual = score_ytvis(gt, turned)
    np.testing.assert_array_equal(actual.precision, expected.precision)
    np.testing.assert_array_equal(actual.recall, expected.recall)


def test_null_equals_a_mask_without_pixels() -> None:
    gt, results = read("null_frames", "gt.json"), read("null_frames", "results.json")
    expected = score_ytvis(gt, results)
    sizes = {video["id"]: (video["height"], video["width"]) for video in gt["videos"]}
    for one in results:
        empty = rle.to_text(rle.empty(*sizes[one["video_id"]]))
        masks = one["segmentations"]
        one["segmentations"] = [empty if mask is None else mask for mask in masks]
    np.testing.assert_array_equal(score_ytvis(gt, results).precision, expected.precision)


def test_adding_a_perfect_track_last_never_hurts() -> None:
    gt, results = read("fuzz_01", "gt.json"), read("fuzz_01", "results.json")
    before = evaluate_ytvis(gt, results)
    lowest = min(one["score"] for one in results)
    annotation = next(one for one in gt["annotations"] if not one["iscrowd"])
    masks = [rle.from_segmentation(one, 0, 0) for one in annotation["segmentations"]]
    keys = {key: annotation[key] for key in ("video_id", "category_id")}
    perfect = {**keys, "score": lowest - 1, "segmentations": [rle.to_text(one) for one in masks]}
    after = evaluate_ytvis(gt, [*results, perfect])
    assert after["AP"] >= before["AP"]
    assert after["AR100"] >= before["AR100"]


def test_all_null_occlusion_counts_as_none(caplog: pytest.LogCaptureFixture) -> None:
    gt, results = read("ovis_occlusion", "gt.json"), read("ovis_occlusion", "results.json")
    for annotation in gt["annotations"]:
        annotation["occlusion"] = [None] * len(annotation["segmentations"])
    with caplog.at_level(logging.WARNING):
        metrics = evaluate_ytvis(gt, results, occlusion=True)
    assert "gives no occlusion level" in caplog.text
    assert metrics["APso"] == metrics["AP"]
    assert math.isnan(metrics["APho"])


def test_classes_of_one_name_are_told_apart() -> None:
    gt, results = read("fuzz_00", "gt.json"), read("fuzz_00", "results.json")
    for category in gt["categories"]:
        category["name"] = "thing"
    scores = score_ytvis(gt, results)
    assert list(scores.per_class()) == [f"thing ({key})" for key in scores.category_ids]


def assert_equal(a: dict[str, float], b: dict[str, float]) -> None:
    np.testing.assert_equal(a, b)  # nan equals nan
