"""Discovery metrics against recorded figures, against counting pairs, and by their properties."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from tests.golden_utils import GOLDEN
from vidseg.evaluation.discovery import (
    adjusted_rand_index,
    contingency_tables,
    foreground_ari,
    identity_shares,
    label_map,
    mean_best_overlap,
    mean_matched_iou,
    mean_shares,
    object_iou,
    psnr,
    score_segments,
    used_segments,
)

EXPECTED = json.loads((GOLDEN / "discovery" / "expected.json").read_text())


def golden_videos(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    arrays = np.load(GOLDEN / "discovery" / f"{name}.npz")
    count = len({key.partition("/")[0] for key in arrays})
    return [(label_map(arrays[f"v{n}/masks"]), arrays[f"v{n}/slots"]) for n in range(count)]


def random_maps(seed: int, *, shape: tuple[int, ...] = (3, 6, 7)) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(-1, generator.integers(1, 6), shape)
    return labels, generator.integers(0, generator.integers(1, 9), shape)


def ari_by_pairs(first: np.ndarray, second: np.ndarray) -> float:
    """Counts the pairs one by one."""
    both = in_first = in_second = number = 0
    for a, b in itertools.combinations(range(len(first)), 2):
        same_first, same_second = first[a] == first[b], second[a] == second[b]
        both += same_first and same_second
        in_first += same_first
        in_second += same_second
        number += 1
    chance = in_first * in_second / number if number else 0
    limit = (in_first + in_second) / 2
    return 1.0 if limit == chance else (both - chance) / (limit - chance)


def overlaps_by_masks(labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """IoU of every object that has a pixel with every segment, mask by mask."""
    segments = np.where(labels >= 0, segments, -1)
    rows = []
    for k in sorted({int(one) for one in labels.ravel() if one > 0}):
        row = []
        for s in range(int(segments.max()) + 1):
            union = ((labels == k) | (segments == s)).sum()
            row.append(((labels == k) & (segments == s)).sum() / union)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("name", ["no_overlap", "overlap"])
def test_recorded_figures_of_a_set(name: str) -> None:
    found = mean_shares(score_segments(*video) for video in golden_videos(name))
    for level, recorded in (("video", "video"), ("image", "frame")):
        expected = EXPECTED[name][recorded]
        assert found[f"{level}/FG-ARI"] == pytest.approx(expected["fg_ari_skip_empty"], abs=1e-12)
        assert found[f"{level}/FG-ARI_empty_is_1"] == pytest.approx(
            expected["fg_ari_empty_is_1"], abs=1e-12
        )
        assert found[f"{level}/mBO"] == pytest.approx(expected["mbo"], abs=1e-12)
        assert found[f"{level}/mIoU"] == pytest.approx(expected["miou_hungarian"], abs=1e-12)


@pytest.mark.parametrize("name", ["no_overlap", "overlap"])
def test_recorded_figures_of_videos(name: str) -> None:
    videos = golden_videos(name)
    assert len(videos) == len(EXPECTED[name]["per_video"])
    for video, expected in zip(videos, EXPECTED[name]["per_video"], strict=True):
        found = mean_shares([score_segments(*video)])
        assert found["video/FG-ARI_empty_is_1"] == pytest.approx(expected["fg_ari"], abs=1e-12)
        assert math.isnan(found["video/FG-ARI"]) == (not expected["has_any_mask"])
        for key, recorded in (("video/mBO", "mbo"), ("video/mIoU", "miou")):
            value = math.nan if expected[recorded] is None else expected[recorded]
            assert found[key] == pytest.approx(value, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", range(100))
def test_rand_index_is_that_of_counted_pairs(seed: int) -> None:
    labels, segments = random_maps(seed)
    tables = contingency_tables(labels, segments)
    for table, truth, found in zip(tables, labels, segments, strict=True):
        counted, foreground = truth >= 0, truth > 0
        assert adjusted_rand_index(table) == pytest.approx(
            ari_by_pairs(truth[counted], found[counted]), abs=1e-12
        )
        expected = ari_by_pairs(truth[foreground], found[foreground])
        defined = foreground.sum() >= 2
        assert foreground_ari(table) == pytest.approx(
            expected if defined else math.nan, abs=1e-12, nan_ok=True
        )


@pytest.mark.parametrize("seed", range(100))
def test_table_is_that_of_scikit_image(seed: int) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    labels, segments = random_maps(seed)
    labels = np.abs(labels)
    expected = metrics.contingency_table(labels, segments).toarray()
    found = contingency_tables(labels, segments).sum(0)
    assert (found[: expected.shape[0], : expected.shape[1]] == expected).all()
    assert found.sum() == expected.sum() == labels.size


@pytest.mark.parametrize("seed", range(30))
def test_overlaps_are_those_of_masks(seed: int) -> None:
    labels, segments = random_maps(seed)
    tables = contingency_tables(labels, segments)
    for part, truth, found in (
        (tables.sum(0), labels, segments),
        *zip(tables, labels, segments, strict=True),
    ):
        iou = overlaps_by_masks(truth, found)
        if not iou.size:
            assert math.isnan(mean_best_overlap(part))
            assert math.isnan(mean_matched_iou(part))
            continue
        assert mean_best_overlap(part) == pytest.approx(iou.max(1).mean(), abs=1e-12)
        padded = np.pad(iou, ((0, 0), (0, max(0, len(iou) - iou.shape[1]))))
        best = max(
            padded[range(len(padded)), columns].sum()
            for columns in itertools.permutations(range(padded.shape[1]), len(padded))
        )
        assert mean_matched_iou(part) == pytest.approx(best / len(iou), abs=1e-12)


def swapped_halves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two objects, their segments, and segments that change places in the middle."""
    labels = np.zeros((4, 4, 6), np.int16)
    labels[:, 1:3, :2], labels[:, 1:3, 4:] = 1, 2
    steady = labels.copy()
    swapped = np.where(np.arange(4)[:, None, None] >= 2, np.array([0, 2, 1])[labels], labels)
    return labels, steady, swapped


def test_swapped_identities_cost_in_the_video_alone() -> None:
    labels, steady, swapped = swapped_halves()
    before, after = (mean_shares([score_segments(labels, one)]) for one in (steady, swapped))
    for name in ("FG-ARI", "mBO", "mIoU"):
        assert before[f"video/{name}"] == before[f"image/{name}"] == after[f"image/{name}"] == 1
        assert after[f"video/{name}"] < 0.7
    assert before["identity/consistency"] == before["identity/majority_share"] == 1
    assert before["identity/switches"] == 0
    assert after["identity/consistency"] == pytest.approx(4 / 6)
    assert after["identity/switches"] == 1
    assert after["identity/majority_share"] == 0.5


def test_numbers_of_segments_do_not_matter() -> None:
    labels, segments = random_maps(3)
    other = np.random.default_rng(1).permutation(10)[segments] * 100_000
    found, expected = (mean_shares([score_segments(labels, s)]) for s in (other, segments))
    # The owner among equals is the one of the lowest number.
    for name in expected:
        if not name.startswith("identity"):
            assert found[name] == pytest.approx(expected[name], nan_ok=True)
    large = np.where(labels > 0, labels * 70_000, labels)
    assert score_segments(large, segments) == score_segments(labels, segments)


def test_a_hidden_object_is_no_pair_but_may_switch() -> None:
    labels = np.zeros((5, 2, 2), np.int16)
    labels[[0, 1, 3, 4], 0, 0] = 1
    segments = np.zeros_like(labels)
    segments[3:, 0, 0] = 4
    found = identity_shares(contingency_tables(labels, segments))
    assert found["consistency"] == (2, 2)
    assert found["switches"] == (1, 1)
    assert found["return"] == (0, 1)
    assert found["majority_share"] == (0.5, 1)
    segments[3:] = 0
    assert identity_shares(contingency_tables(labels, segments))["return"] == (1, 1)


def test_one_object() -> None:
    labels = np.zeros((2, 3, 3), np.int16)
    labels[:, 1:, 1:] = 1
    whole = score_segments(labels, np.zeros_like(labels))
    assert whole["video/FG-ARI"] == (1, 1)
    assert whole["video/ARI"] == (0, 1)
    assert whole["image/FG-ARI"] == (2, 2)
    assert whole["video/mBO"] == whole["video/mIoU"] == (pytest.approx(4 / 9), 1)
    cut = labels.copy()
    cut[:, 2, 2] = 0
    assert score_segments(labels, cut)["video/FG-ARI"] == (0, 1)


def test_more_objects_than_segments() -> None:
    labels = np.arange(1, 7, dtype=np.int16).reshape(1, 2, 3)
    segments = (labels > 3).astype(np.int64)
    found = mean_shares([score_segments(labels, segments)])
    assert found["image/mBO"] == pytest.approx(1 / 3)
    assert found["image/mIoU"] == pytest.approx(2 / 3 / 6)


def test_frames_without_objects_are_left_out_or_count_as_1() -> None:
    labels, steady, swapped = swapped_halves()
    labels[0] = 0
    labels[1] = -1
    assert score_segments(labels, swapped)["image/FG-ARI"] == (2, 2)
    assert score_segments(labels, swapped)["image/FG-ARI_empty_is_1"] == (3, 3)
    nothing = score_segments(np.zeros_like(labels), steady)
    assert nothing["video/FG-ARI"] == nothing["image/mBO"] == nothing["video/mIoU"] == (0, 0)
    assert nothing["image/ARI"] == (0, 4)
    means = mean_shares([nothing])
    assert all(math.isnan(means[f"{level}/mIoU"]) for level in ("video", "image"))
    assert nothing["image/FG-ARI_empty_is_1"] == (4, 4)
    padding = score_segments(np.full_like(labels, -1), steady)
    assert set(padding.values()) == {(0, 0)}


def test_pixels_of_two_objects_do_not_count() -> None:
    masks = np.zeros((2, 1, 2, 4), bool)
    masks[0, 0, :, :3] = True
    masks[1, 0, :, 2:] = True
    labels = label_map(masks)
    assert labels.tolist() == [[[1, 1, -1, 2], [1, 1, -1, 2]]]
    for wrong in (0, 1, 2):
        segments = np.where(labels < 0, wrong, labels)
        assert mean_shares([score_segments(labels, segments)])["video/mIoU"] == 1
    assert label_map(np.zeros((0, 3, 2, 2), bool)).tolist() == np.zeros((3, 2, 2)).tolist()


def test_the_first_frame_may_be_left_out() -> None:
    labels, steady, _ = swapped_halves()
    wrong = steady.copy()
    wrong[0] = 0
    assert mean_shares([score_segments(labels, wrong)])["image/mBO"] < 1
    assert mean_shares([score_segments(labels, wrong, first_frame=False)])["image/mBO"] == 1
    single = score_segments(labels[:1], wrong[:1], first_frame=False)
    assert single["video/FG-ARI"] == single["image/FG-ARI"] == single["identity/switches"] == (0, 0)


def test_videos_are_summed() -> None:
    videos = [score_segments(*random_maps(seed)) for seed in range(5)]
    found = mean_shares(videos)
    values = [v["image/mBO"] for v in videos]
    total, number = np.sum(values, axis=0)
    assert found["image/mBO"] == pytest.approx(total / number)
    assert found["video/mBO"] == pytest.approx(np.mean([v["video/mBO"][0] for v in videos]))
    assert mean_shares([]) == {}


def test_counts_are_exact_where_floats_are_not() -> None:
    """One cluster of a long video on both sides: no rounded denominator of nought."""
    for count in (3_000_000_019, 2_147_483_647, 3_037_000_499):
        assert adjusted_rand_index(np.array([[count, 0], [0, 0]])) == 1
        assert adjusted_rand_index(np.array([[count // 2, count // 2]])) == 0


def test_wrong_maps_are_refused() -> None:
    labels = np.zeros((2, 3, 3), np.int64)
    with pytest.raises(ValueError, match="must have one shape"):
        contingency_tables(labels, labels[:1])
    with pytest.raises(ValueError, match="not int64 and float64"):
        contingency_tables(labels, labels.astype(float))
    with pytest.raises(ValueError, match="numbered from 0 on"):
        contingency_tables(labels, labels - 1)
    with pytest.raises(ValueError, match="segment 3 is not below 3"):
        contingency_tables(labels, labels + 3, num_segments=3)
    assert contingency_tables(labels, labels, num_segments=3).shape == (2, 1, 3)
    assert object_iou(contingency_tables(labels, labels)).shape == (2, 0, 1)


def test_psnr() -> None:
    reference = np.full((3, 3, 4, 4), 0.5, np.float32)
    images = reference.copy()
    images[1] += 0.1
    images[2] = 7  # shown as 1
    assert psnr(images, reference) == pytest.approx([100, 20, 10 * math.log10(4)], abs=1e-4)


def test_used_segments() -> None:
    segments = np.zeros((2, 10, 20), np.int64)
    segments[0, 0, :3], segments[0, 1, :2] = 1, 2
    assert used_segments(segments) == 1.5
    assert used_segments(segments, min_share=0.0) == 2
