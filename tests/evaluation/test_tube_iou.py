import subprocess
import sys

import numpy as np
import pytest

from vidseg import rle
from vidseg.evaluation.tube_iou import Tubes, pair_ious, tube_ious


def boxes(rng: np.random.Generator, frames: int, height: int = 24, width: int = 32) -> np.ndarray:
    """A rectangle that moves, with holes and sometimes gone: bool (T, H, W)."""
    masks = np.zeros((frames, height, width), bool)
    top, left = rng.integers(0, height - 6), rng.integers(0, width - 6)
    for mask in masks:
        if rng.random() < 0.8:
            top, left = top + rng.integers(-1, 2), left + rng.integers(-1, 2)
            top, left = np.clip(top, 0, height - 3), np.clip(left, 0, width - 3)
            mask[top : top + rng.integers(2, 12), left : left + rng.integers(2, 14)] = True
            mask &= rng.random(mask.shape) < 0.9
    return masks


def rles(masks: np.ndarray, *, as_text: bool = True) -> list:
    encoded = rle.encode(masks)
    return [rle.to_text(one) if as_text else one for one in encoded]


def brute_force(rows: list[np.ndarray], columns: list[np.ndarray]) -> np.ndarray:
    result = np.zeros((len(rows), len(columns)))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            frames = min(len(a), len(b))
            union = int((a[:frames] | b[:frames]).sum())
            result[i, j] = int((a[:frames] & b[:frames]).sum()) / union if union else 0
    return result


@pytest.mark.parametrize("seed", range(6))
def test_equals_counting_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [5] * 4 if seed % 2 else [5, 3, 4, 6]
    truths = [boxes(rng, length) for length in lengths]
    rows = [boxes(rng, length) for length in lengths]
    rows += [truth ^ (rng.random(truth.shape) < 0.05) for truth in truths]
    expected = brute_force(rows, truths)
    tubes = Tubes.from_masks([rles(row, as_text=seed % 3 > 0) for row in rows])
    true_tubes = Tubes.from_masks([rles(truth) for truth in truths])
    np.testing.assert_array_equal(tube_ious(tubes, true_tubes), expected)
    np.testing.assert_array_equal(tubes.areas[: len(rows[0])], rows[0].sum(axis=(1, 2)))
    for low in (0.05, 0.5, 0.9):
        pruned = tube_ious(tubes, true_tubes, min_iou=low)
        np.testing.assert_array_equal(pruned[expected >= low], expected[expected >= low])
        assert (pruned[expected < low] < low).all()


def test_is_not_the_mean_of_the_frames() -> None:
    a, b = np.zeros((2, 4, 6), bool), np.zeros((2, 4, 6), bool)
    a[0, :2, :2] = b[0, :2, :2] = True  # IoU 1 on 4 pixels
    a[1, :, :3], b[1, :, 3:] = True, True  # IoU 0 on 24 pixels
    ious = tube_ious(Tubes.from_masks([rles(a)]), Tubes.from_masks([rles(b)]))
    assert ious.item() == 4 / 28


def test_null_equals_a_mask_without_pixels() -> None:
    rng = np.random.default_rng(0)
    a, b = boxes(rng, 6), boxes(rng, 6)
    a[2], b[2:4] = False, False
    nulls = [None if not mask.any() else one for one, mask in zip(rles(a), a, strict=True)]
    others = Tubes.from_masks([rles(b)])
    with_nulls, without = Tubes.from_masks([nulls]), Tubes.from_masks([rles(a)])
    assert tube_ious(with_nulls, others) == tube_ious(without, others)
    assert with_nulls.mean_areas() == without.mean_areas()


def test_frames_of_another_size_count_nowhere() -> None:
    a = np.ones((2, 4, 6), bool)
    other = [rles(a)[0], rle.to_text(rle.encode(np.ones((5, 6), bool)))]
    ious = tube_ious(Tubes.from_masks([other]), Tubes.from_masks([rles(a)]))
    assert ious.item() == 1.0
    none = tube_ious(Tubes.from_masks([other[1:]]), Tubes.from_masks([rles(a[:1])]))
    assert none.item() == 0.0


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (0, 0)])
def test_no_tracks_on_a_side(shape: tuple[int, int]) -> None:
    tracks = [[None, None]] * 2
    sides = [Tubes.from_masks(tracks[:num]) for num in shape]
    assert tube_ious(*sides).shape == shape
    assert tube_ious(Tubes.from_masks(tracks), Tubes.from_masks([[]])).tolist() == [[0.0], [0.0]]


def test_many_tracks_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tubes = Tubes.from_masks([rles(boxes(rng, 3)) for _ in range(7)])
    expected = tube_ious(tubes, tubes)
    monkeypatch.setattr("vidseg.evaluation.tube_iou.MAX_PAIR_FRAMES", 45)
    np.testing.assert_array_equal(tube_ious(tubes, tubes), expected)
    np.testing.assert_array_equal(np.diag(expected), tubes.mean_areas() > 0)


@pytest.mark.parametrize("change", ["short", "long", "inside", "first", "empty"])
def test_a_damaged_mask_is_refused_and_does_not_hang(change: str) -> None:
    # in a process of its own: the C code behind it never returns when the check fails
    program = f"""
import numpy as np
from vidseg import rle
from vidseg.evaluation.tube_iou import Tubes, tube_ious
sound = rle.to_text(rle.encode(np.eye(6, 8, dtype=bool)))
text = sound["counts"]
changed = {{"short": text[:5], "long": text + "99", "inside": text + "o", "first": "3" + text[1:],
    "empty": ""}}
try:
    bad = Tubes.from_masks([[dict(sound, counts=changed[{change!r}])]])
    tube_ious(bad, Tubes.from_masks([[sound]]))
except ValueError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.startswith("track 0, frame 0: an RLE is damaged: its ")


@pytest.mark.parametrize("size", [[2], [2, 3, 4], [2, "3"], [0, 3], [2.5, 3], [1 << 70, 3], None])
def test_sizes_are_checked(size: object) -> None:
    with pytest.raises(ValueError, match="expected \\[height, width\\]"):
        Tubes.from_masks([[{"size": size, "counts": "6"}, {"size": [2, 3], "counts": "6"}]])


def test_some_pairs_can_be_chosen() -> None:
    rng = np.random.default_rng(0)
    tubes = Tubes.from_masks([rles(boxes(rng, 4)) for _ in range(4)])
    first, second = np.array([3, 0, 0, 2]), np.array([1, 0, 2, 1])
    expected = tube_ious(tubes, tubes)[first, second]
    np.testing.assert_array_equal(pair_ious(tubes, tubes, first, second), expected)


@pytest.mark.parametrize("damage", ["13", "13o", ""])
def test_a_damaged_mask_is_named(damage: str) -> None:
    sound = rles(np.ones((3, 4, 6), bool))
    tracks = [sound[:2], [], [None, sound[0], dict(sound[0], counts=damage)]]

    def compare() -> None:
        tube_ious(Tubes.from_masks(tracks, "the {}nd".format), Tubes.from_masks([sound]))

    with pytest.raises(ValueError, match=r"^the 2nd, frame 2: an RLE is damaged"):
        compare()


def test_tracks_that_are_not_compared_have_areas_too() -> None:
    rng = np.random.default_rng(0)
    tracks = [rles(boxes(rng, 5)), [], [None, *rles(boxes(rng, 2))]]
    alone = Tubes.from_masks(tracks, is_compared=False)
    expected = [0 if mask is None else rle.area(mask) for track in tracks for mask in track]
    assert alone.areas.tolist() == expected
    assert alone.mean_areas().tolist() == Tubes.from_masks(tracks).mean_areas().tolist()
    cut = [None, dict(tracks[0][0], counts="13o")]
    with pytest.raises(ValueError, match=r"^track 3, frame 1: an RLE is damaged"):
        Tubes.from_masks([*tracks, cut], is_compared=False)


def test_a_track_without_frames_may_be_the_last() -> None:
    tubes = Tubes.from_masks([rles(np.ones((2, 4, 6), bool)), []])
    np.testing.assert_array_equal(tube_ious(tubes, tubes), [[1, 0], [0, 0]])
