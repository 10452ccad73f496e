from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from vidseg.errors import UserError
from vidseg.projects.persistence.clips import PersistenceClips
from vidseg.projects.persistence.scene import Scene, draw_scene
from vidseg.projects.persistence.variants import SPLITS, VARIANTS


def scenes(variant: str, count: int, *, agreement: float = 1.0, **settings: int) -> list[Scene]:
    """Scenes without their pictures, which take longer."""
    size = {"size": 64, "num_frames": 16, "min_transient": 0, **settings}
    rng = np.random.default_rng(5)
    drawn = (draw_scene(rng, VARIANTS[variant], agreement=agreement, **size) for _ in range(count))
    return list(drawn)


def objects_of(found: list[Scene], label: int, name: str) -> np.ndarray:
    return np.concatenate([getattr(scene, name)[scene.labels == label] for scene in found])


def test_a_clip_is_a_function_of_its_name() -> None:
    clips = PersistenceClips("random", "val")
    clips[3]
    first, again = clips[7], PersistenceClips("random", "val")[7]
    assert first.frames.dtype == torch.uint8
    assert first.frames.shape == (16, 3, 64, 64)
    assert torch.equal(first.frames, again.frames)
    assert np.array_equal(first.objects.centers, again.objects.centers)
    for other in (
        PersistenceClips("random", "test"),
        PersistenceClips("longgap", "val"),
        PersistenceClips("random", "val", seed=1),
    ):
        assert not torch.equal(first.frames, other[7].frames)


def test_what_a_seed_means_stays() -> None:
    """A change here makes results incomparable: it needs another version of the clips."""
    found = PersistenceClips("same", "test")[3].objects
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.visible.sum(1).tolist() == [4, 16, 16, 2]
    expected = [[20.46, 20.61], [17.99, 27.75], [23.90, 8.48], [50.81, 15.77]]
    assert found.centers[:, 0] == pytest.approx(np.array(expected), abs=0.01)


def test_seeds_of_splits_and_variants_never_meet() -> None:
    seen = {
        tuple(PersistenceClips(variant, split).seed_sequence(index, purpose).generate_state(4))
        for variant in ("same", "conflict")
        for split in SPLITS
        for index in range(1000)
        for purpose in (0, 1)
    }
    assert len(seen) == 2 * 3 * 1000 * 2


@pytest.mark.slow
def test_no_clip_occurs_twice() -> None:
    digests = {
        hashlib.sha256(PersistenceClips("same", split)[index].frames.numpy().tobytes()).digest()
        for split in SPLITS
        for index in range(1000)
    }
    assert len(digests) == 3000


@pytest.mark.parametrize("variant", ["same", "longgap"])
def test_presence_follows_the_class(variant: str) -> None:
    kind, found = VARIANTS[variant], scenes(variant, 400)
    stays, goes = (objects_of(found, label, "visible") for label in (1, 0))
    starts = np.diff(np.pad(goes.astype(int), ((0, 0), (1, 0))), axis=1) == 1
    assert (starts.sum(1) == 1).all()  # one interval
    assert goes.sum(1).min() == kind.transient_frames[0]
    assert goes.sum(1).max() == kind.transient_frames[1]
    missing = (~stays).sum(1)
    assert stays[:, [0, -1]].all()
    assert missing.max() == kind.gap_frames[1]
    assert set(missing) == {0, *range(kind.gap_frames[0], kind.gap_frames[1] + 1)}
    assert (missing > 0).mean() == pytest.approx(kind.gap_share, abs=0.05)


def test_duration_alone_decides_unless_gaps_are_long() -> None:
    for variant, overlaps in (("same", False), ("longgap", True)):
        found = scenes(variant, 400)
        least = objects_of(found, 1, "visible").sum(1).min()
        most = objects_of(found, 0, "visible").sum(1).max()
        assert (least <= most) == overlaps


def test_single_moments_tell_nothing() -> None:
    found = scenes("same", 1500)
    stays, goes = (objects_of(found, label, "visible") for label in (1, 0))
    shares = [visible.mean(0) / visible.mean() / 16 for visible in (stays, goes)]
    # The best guess by the frame index is right this much more often than by chance.
    assert np.abs(shares[0] - shares[1]).sum() / 4 < 0.02
    for name in ("centers", "radii", "colors"):
        one, other = (objects_of(found, label, name) for label in (1, 0))
        spread = one.std()
        assert np.abs(one.mean(0) - other.mean(0)).max() < 0.12 * spread
        assert one.std() == pytest.approx(other.std(), rel=0.08)
    speeds = [
        np.linalg.norm(np.diff(objects_of(found, label, "centers"), axis=1), axis=2)
        for label in (1, 0)
    ]
    assert speeds[0].mean() == pytest.approx(speeds[1].mean(), rel=0.03)


def test_clips_may_be_played_backwards() -> None:
    """No statistic of the class changes when time is reversed."""
    found = scenes("same", 1500)
    for label in (0, 1):
        visible = objects_of(found, label, "visible")
        assert np.abs(visible.mean(0) - visible.mean(0)[::-1]).max() < 0.05
        starts, ends = visible.argmax(1), visible[:, ::-1].argmax(1)
        assert starts.mean() == pytest.approx(ends.mean(), abs=0.5)


def test_depth_is_independent_of_the_class() -> None:
    found = [scene.labels for scene in scenes("same", 600) if len(scene.labels) > 1]
    ranks = [np.flatnonzero(labels == 1).mean() / (len(labels) - 1) for labels in found]
    assert np.mean(ranks) == pytest.approx(0.5, abs=0.03)


def test_colours() -> None:
    for label, limits in ((1, (0.8, 1.0)), (0, (0.0, 1 / 1.5))):
        colors = objects_of(scenes("coloured", 50), label, "colors")
        ratio = colors[:, 1:].max(1) / colors[:, 0]
        assert (ratio >= limits[0]).all()
        assert (ratio <= limits[1]).all()
    strengths = [objects_of(scenes("random", 200), label, "colors").max(1) for label in (0, 1)]
    assert min(map(min, strengths)) >= 0.85
    for agreement in (0.9, 0.1):
        found = scenes("conflict", 300, agreement=agreement)
        white = np.concatenate([scene.colors.min(1) > 0.5 for scene in found])
        labels = np.concatenate([scene.labels for scene in found])
        assert (white == (labels == 1)).mean() == pytest.approx(agreement, abs=0.05)


def test_only_test_clips_of_conflict_have_the_other_colours() -> None:
    shares = []
    for split in SPLITS:
        clips = [PersistenceClips("conflict", split)[index].objects for index in range(40)]
        white = np.concatenate([found.colors.min(1) > 0.5 for found in clips])
        shares.append((white == np.concatenate([found.labels for found in clips])).mean())
    assert shares[0] > 0.8
    assert shares[1] > 0.8
    assert shares[2] < 0.2


def test_distractors_lie_outside_of_the_objects() -> None:
    found = scenes("distractor", 60)
    assert any((scene.labels < 0).any() for scene in found)
    assert any(scene.occluders for scene in found)
    faint = np.concatenate([scene.opacity[scene.labels >= 0].ravel() < 1 for scene in found])
    assert faint.mean() == pytest.approx(0.1, abs=0.02)
    clip = PersistenceClips("distractor", "train")[0]
    assert (clip.objects.labels >= 0).all()


def test_bars_hide_objects() -> None:
    clips = PersistenceClips("distractor", "train")
    hidden = 0
    for index in range(30):
        found = clips[index].objects
        hidden += int((~found.visible[found.labels == 1]).sum())
    plain = PersistenceClips("same", "train")
    gaps = sum(
        int((~plain[index].objects.visible[plain[index].objects.labels == 1]).sum())
        for index in range(30)
    )
    assert hidden > 2 * gaps


def test_larger_frames_show_the_same_scene() -> None:
    small, large = (PersistenceClips("same", "train", size=size)[2] for size in (64, 128))
    assert large.frames.shape == (16, 3, 128, 128)
    assert np.array_equal(small.objects.visible, large.objects.visible)
    assert large.objects.radii == pytest.approx(2 * small.objects.radii, rel=1e-5)
    # Centres are at the same place up to half a pixel, which is what a pixel's middle moves by.
    assert np.abs(large.objects.centers - 2 * small.objects.centers).max() < 1.5


def test_objects_are_bright_where_they_are_said_to_be() -> None:
    clip = PersistenceClips("same", "val")[1]
    grey = clip.frames.numpy().max(1)
    found = clip.objects
    for item, frame in zip(*np.nonzero(found.visible), strict=True):
        y, x = np.rint(found.centers[item, frame]).astype(int)
        assert grey[frame, y, x] > 120
    hidden = ~found.visible
    assert hidden.any()
    assert np.median(grey) < 30
    assert found.durations == pytest.approx(found.visible.mean(1))


def test_least_number_of_transients() -> None:
    assert min((scene.labels == 0).sum() for scene in scenes("same", 60)) == 0
    found = scenes("same", 60, min_transient=2)
    assert {int((scene.labels == 0).sum()) for scene in found} == {2, 3, 4, 5}
    assert {int((scene.labels == 1).sum()) for scene in found} == {1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("sane", "train"), {}, "there is no variant 'sane' of the clips; nearest: same"),
        (("same", "valid"), {}, "there is no split 'valid'"),
        (("same", "val"), {"size": 16}, "16 pixels are too small; use 32"),
        (("same", "val"), {"num_frames": 8}, "clips of same need 10 or more"),
        (("same", "val"), {"min_transient": 6}, "min_transient is 6; give 0 to 5"),
    ],
)
def test_meaningless_clips_are_refused(arguments, settings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PersistenceClips(*arguments, **settings)


def test_negative_number_of_a_clip() -> None:
    with pytest.raises(IndexError, match="numbered from 0"):
        PersistenceClips("same", "val")[-1]
