"""One sentence for whatever is wrong in the files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidseg.errors import DataError
from vidseg.evaluation import evaluate_ytvis
from vidseg.evaluation.ytvis_files import load_ground_truth


def files() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    masks = [{"size": [2, 3], "counts": "132"}, None]
    track = {"video_id": 1, "category_id": 5, "segmentations": masks}
    annotation = {"id": 1, "iscrowd": 0, "areas": [3, None], "bboxes": [None] * 2, **track}
    gt = {
        "videos": [{"id": 1, "height": 2, "width": 3, "length": 2, "file_names": ["a", "b"]}],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [annotation],
    }
    return json.loads(json.dumps(gt)), json.loads(json.dumps([{"score": 0.5, **track}]))


def test_the_small_files_are_sound() -> None:
    assert evaluate_ytvis(*files())["AP"] == pytest.approx(1)


@pytest.mark.parametrize("score", [np.float32(0.5), np.int64(1), 1])
def test_scores_may_be_numbers_of_numpy(score: Any) -> None:
    gt, results = files()
    assert evaluate_ytvis(gt, [results[0] | {"score": score}])["AP"] == pytest.approx(1)


def test_polygons_need_the_size_of_their_video() -> None:
    gt, results = files()
    gt["annotations"][0]["segmentations"][0] = [[0, 0, 3, 0, 3, 2]]
    gt["videos"][0]["height"] = "2"
    with pytest.raises(DataError, match=r"frame 0: polygons need the size .* '2' x 3"):
        evaluate_ytvis(gt, results)


def change_gt(*keys: Any, value: Any) -> Callable[[Any, Any], None]:
    def change(gt: Any, results: Any) -> None:
        for key in keys[:-1]:
            gt = gt[key]
        gt[keys[-1]] = value

    return change


def change_results(*keys: Any, value: Any) -> Callable[[Any, Any], None]:
    return lambda gt, results: change_gt(*keys, value=value)(results, None)


def drop_gt(*keys: Any) -> Callable[[Any, Any], None]:
    def change(gt: Any, results: Any) -> None:
        for key in keys[:-1]:
            gt = gt[key]
        del gt[keys[-1]]

    return change


def drop_result(key: str) -> Callable[[Any, Any], None]:
    return lambda gt, results: results[0].pop(key)


FIRST = ("annotations", 0)
MASK = ("segmentations", 0)
FAULTS = [
    (drop_gt("videos"), "gt.json is not a YouTube-VIS file: it has no list 'videos'"),
    (drop_gt("categories"), "gt.json is not a YouTube-VIS file: it has no list 'categories'"),
    (drop_gt("annotations"), "gt.json has no annotations, so there is nothing to score against"),
    (change_gt("annotations", value=None), "gt.json has no annotations"),
    (change_gt("annotations", value=7), "gt.json: 'annotations' must be a list"),
    (change_gt("videos", 0, "id", value="one"), "gt.json: video 0 has no integer 'id'"),
    (change_gt("categories", 0, value=3), "gt.json: category 0 has no integer 'id'"),
    (drop_gt("videos", 0, "height"), "gt.json: annotation 0 .*'height'"),
    (drop_gt(*FIRST, "areas"), "gt.json: annotation 0 lacks the key 'areas'"),
    (drop_gt(*FIRST, "category_id"), "gt.json: annotation 0 lacks the key 'category_id'"),
    (change_gt(*FIRST, value=[]), "gt.json: annotation 0 is not a track"),
    (change_gt(*FIRST, "areas", value=["x"]), "gt.json: annotation 0: 'areas' must be"),
    (change_gt(*FIRST, "video_id", value=9), "annotation 0 belongs to video 9, which is not among"),
    (change_gt(*FIRST, *MASK, value="m"), "annotation 0, frame 0: a segmentation is a str"),
    (change_gt("categories", value=[]), "gt.json has no categories, so no track counts"),
    (change_gt(*FIRST, "category_id", value=[5]), "gt.json: annotation 0 is not a track"),
    (change_gt(*FIRST, *MASK, value=[[1, 2]]), "annotation 0, frame 0: a polygon has 2 numbers"),
    (change_gt(*FIRST, *MASK, value=[1, 2, 3, 4, 5, 6]), "frame 0: a polygon is a int, expected"),
    (
        change_gt(*FIRST, *MASK, "counts", value="133"),
        "annotation 0, video 1, frame 0: .* cover",
    ),
    (change_gt(*FIRST, *MASK, value={"counts": "6"}), "annotation 0, frame 0: an RLE lacks"),
    (change_results(0, value=3), "results.json: entry 0 is not a track: 3"),
    *[(drop_result(key), f"results.json: entry 0 lacks the key '{key}'") for key in files()[1][0]],
    (change_results(0, "score", value="high"), "entry 0 has score 'high', expected a finite"),
    (change_results(0, "score", value=float("nan")), "entry 0 has score nan"),
    (change_results(0, "score", value=10**400), "entry 0 has score 10000"),
    (change_results(0, "score", value=True), "entry 0 has score True"),
    (change_results(0, "video_id", value=4), "entry 0 has video_id 4, which is not in .*gt.json"),
    (change_results(0, "video_id", value=[]), "results.json: entry 0 is not a track"),
    (change_results(0, "segmentations", value=None), "'segmentations' must be a list"),
    (change_results(0, *MASK, value=[[1, 2, 3, 4, 5, 6]]), "frame 0: a predicted mask must be RLE"),
    (change_results(0, *MASK, value={"size": [2, 3]}), "frame 0: a predicted mask must be RLE"),
    (change_results(0, *MASK, "counts", value=7), "frame 0: an RLE has counts of type int"),
    (change_results(0, *MASK, "size", value=[2]), "video 1, frame 0: an RLE has size"),
    (
        change_results(0, *MASK, "counts", value="13o"),
        "entry 0, video 1, frame 0: .*number",
    ),
    (
        change_results(0, *MASK, "counts", value="13"),
        "entry 0, video 1, frame 0: .* cover",
    ),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults_are_told_in_one_sentence(
    change: Callable[[Any, Any], None], message: str, tmp_path: Path
) -> None:
    gt, results = files()
    change(gt, results)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(DataError, match=message) as caught:
        evaluate_ytvis(tmp_path / "gt.json", tmp_path / "results.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("category_id", [5, 6])
@pytest.mark.parametrize("is_annotated", [True, False])
def test_masks_that_are_not_compared_are_checked_too(
    category_id: int, is_annotated: bool, tmp_path: Path
) -> None:
    gt, results = files()
    gt["categories"].append({"id": 6, "name": "dog"})
    damaged = [{"size": [2, 3], "counts": "13"}, None]
    track = {**results[0], "category_id": category_id, "segmentations": damaged}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([*results, track]))
    with pytest.raises(DataError, match=r"results.json: entry 1, video 1, frame 0: .* cover"):
        evaluate_ytvis(gt if is_annotated else {**gt, "annotations": []}, path)
    gt["annotations"][0]["segmentations"][0] = damaged[0]
    with pytest.raises(DataError, match=r"the ground truth: annotation 0, video 1, frame 0: "):
        evaluate_ytvis(gt, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results file .* does not exist"),
        (b"[{", "is not valid json: .* in line 1, column"),
        (b"\xff\xfe\x00", "is not valid json: it is not text"),
        (b"{}", "its top level must be a list of tracks"),
        (b'"text"', "its top level must be a list of tracks"),
    ],
)
def test_unreadable_results(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        evaluate_ytvis(files()[0], path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_ground_truth(tmp_path)
    with pytest.raises(DataError, match="top level must be an object"):
        load_ground_truth([])  # type: ignore[arg-type]


def test_occlusion_levels_must_be_there_and_known() -> None:
    gt, results = files()
    with pytest.raises(DataError, match="annotation 0 lacks the key 'occlusion'"):
        evaluate_ytvis(gt, results, occlusion=True)
    gt["annotations"][0]["occlusion"] = ["half", None]
    with pytest.raises(DataError, match="has occlusion 'half'; known levels: no_occlusion, "):
        evaluate_ytvis(gt, results, occlusion=True)


def test_predictions_of_unknown_classes_are_left_out() -> None:
    gt, results = files()
    stranger = {**results[0], "category_id": 6, "score": 1.0}
    assert evaluate_ytvis(gt, [stranger, *results])["AP"] == pytest.approx(1)


def test_occlusion_of_a_track_is_the_mean_of_its_worst_half() -> None:
    gt, _ = files()
    levels = ["no_occlusion", "severe_occlusion", None, "slight_occlusion"]
    gt["annotations"][0]["occlusion"] = levels
    assert load_ground_truth(gt, occlusion=True).tracks[0].occlusion == (0.75 + 0.25) / 2
    gt["annotations"][0]["occlusion"] = [*levels, "severe_occlusion"]
    assert load_ground_truth(gt, occlusion=True).tracks[0].occlusion == 0.75
