from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from vidseg.errors import ConfigError
from vidseg.projects.persistence.augmentation import TokenAugmentation, TokenClip
from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.patches import extract_patches

OFF = {
    "flip": False,
    "time_reversal": False,
    "brightness": 0.0,
    "noise": 0.0,
    "token_dropout": 0.0,
    "jitter": 0.0,
}


@pytest.fixture
def clip() -> TokenClip:
    """Eight frames with three objects, the last of them no object."""
    generator = torch.Generator().manual_seed(1)
    count, num_frames = 24, 8
    frames = torch.randint(0, 200, (num_frames, 3, 32, 32), dtype=torch.uint8, generator=generator)
    found = Detections(
        frame=torch.arange(num_frames).repeat_interleave(3),
        y=torch.randint(8, 24, (count,), generator=generator).float(),
        x=torch.randint(8, 24, (count,), generator=generator).float(),
        sigma=torch.ones(count),
        response=torch.rand(count, generator=generator),
        brightness=torch.ones(count),
        circularity=torch.ones(count),
        confidence=torch.linspace(1, 0, count),
        color=torch.rand(count, 3, generator=generator) * 0.7,
        num_frames=num_frames,
        size=(32, 32),
    )
    return TokenClip(
        found,
        extract_patches(frames, found, side=7),
        torch.tensor([0, 1, -1]).repeat(num_frames),
        torch.arange(3).repeat(num_frames),
        torch.rand(2, num_frames, generator=generator) < 0.5,
    )


def many(clip: TokenClip, count: int = 30, **settings: float) -> list[TokenClip]:
    augmentation = TokenAugmentation(**{**OFF, **settings})
    return [augmentation(clip, np.random.default_rng(seed)) for seed in range(count)]


def equal(one: TokenClip, other: TokenClip) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)[1:]]
    for field in fields(one.detections):
        ours, theirs = (getattr(each.detections, field.name) for each in (one, other))
        if not isinstance(ours, torch.Tensor):
            ours, theirs = torch.tensor(ours), torch.tensor(theirs)
        pairs.append((ours, theirs))
    return all(torch.equal(*pair) for pair in pairs)


def test_nothing_wanted_changes_nothing(clip) -> None:
    assert equal(clip, many(clip, 1)[0])


def test_the_same_draws_give_the_same_clip(clip) -> None:
    augmentation = TokenAugmentation(color_jitter=1.0)
    one, same, other = (augmentation(clip, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert equal(one, same)
    assert not equal(one, other)


def test_flipped_tokens_are_the_tokens_of_a_flipped_clip(clip) -> None:
    """All eight symmetries of the square occur, each with patches that fit the places."""
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    clip.patches = extract_patches(frames, clip.detections, side=7)
    seen = set()
    for changed in many(clip, 60, flip=True):
        found = changed.detections
        for name in range(8):
            moved = frames.flip([d for d, bit in ((2, 1), (3, 2)) if name & bit])
            moved = moved.transpose(2, 3) if name & 4 else moved
            if torch.equal(extract_patches(moved, found, side=7), changed.patches):
                seen.add(name)
                break
        else:
            pytest.fail("the patches do not fit the places")
    assert seen == set(range(8))


def test_frames_that_are_not_square_keep_their_axes(clip) -> None:
    clip.detections.size = (32, 40)
    columns = {tuple(sorted(changed.detections.x.tolist())) for changed in many(clip, flip=True)}
    assert columns == {
        tuple(sorted(clip.detections.x.tolist())),
        tuple(sorted((39 - clip.detections.x).tolist())),
    }


def test_time_reversal(clip) -> None:
    changed = [c for c in many(clip, time_reversal=True) if not equal(c, clip)]
    assert 5 < len(changed) < 25
    backwards = changed[0]
    assert torch.equal(backwards.presence, clip.presence.flip(1))
    found = backwards.detections
    assert torch.equal(found.frame, clip.detections.frame)  # sorted again
    for frame in range(8):
        now, then = found.frame == frame, clip.detections.frame == 7 - frame
        assert torch.equal(found.y[now], clip.detections.y[then])
        assert torch.equal(backwards.patches[now], clip.patches[then])
        assert (found.confidence[now].diff() <= 0).all()
    twice = TokenAugmentation(**{**OFF, "time_reversal": True})
    seed = next(s for s in range(9) if not equal(twice(clip, np.random.default_rng(s)), clip))
    assert equal(twice(backwards, np.random.default_rng(seed)), clip)


def test_dropout_leaves_out_whole_tokens(clip) -> None:
    changed = many(clip, 100, token_dropout=0.2)
    counts = [len(c.detections) for c in changed]
    assert np.mean(counts) == pytest.approx(0.8 * 24, abs=0.8)
    for one in changed[:5]:
        rows = [clip.detections.confidence.tolist().index(v) for v in one.detections.confidence]
        assert torch.equal(one.patches, clip.patches[rows])
        assert torch.equal(one.object_ids, clip.object_ids[rows])
        assert torch.equal(one.tracks, clip.tracks[rows])
        assert torch.equal(one.presence, clip.presence)


def test_jitter_moves_centres_only(clip) -> None:
    changed = many(clip, 50, jitter=0.3)
    shifts = torch.cat([c.detections.centers - clip.detections.centers for c in changed])
    assert shifts.std() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(changed[0].patches, clip.patches)


def test_brightness_and_noise(clip) -> None:
    for changed in many(clip, 20, brightness=0.2):
        factor = float(changed.detections.response[0] / clip.detections.response[0])
        assert 0.8 <= factor <= 1.2
        assert changed.detections.color == pytest.approx(clip.detections.color * factor)
        error = changed.patches - (clip.patches * factor).clamp(max=255)
        assert error.abs().max() <= 0.5 + 1e-3
    grey = clip.patches.float().clamp(60, 190)
    clip.patches = grey.to(torch.uint8)
    noise = torch.stack([c.patches.float() - grey for c in many(clip, 5, noise=0.05)])
    assert noise.std() == pytest.approx(0.05 * 255, rel=0.05)


def test_objects_get_a_common_colour_of_the_same_strength(clip) -> None:
    for changed in many(clip, 5, color_jitter=1.0):
        found = changed.detections
        strength = clip.detections.color.amax(1)
        assert found.color.amax(1) == pytest.approx(strength)
        hues = found.color / strength[:, None]
        for number in (0, 1, -1):
            own = hues[changed.object_ids == number]
            assert own.std(0).max() < 1e-5
        assert torch.equal(changed.patches.amax(1), clip.patches.amax(1))
    half = many(clip, 1, color_jitter=0.5)[0].detections.color
    whole = many(clip, 1, color_jitter=1.0)[0].detections.color
    assert half == pytest.approx((whole + clip.detections.color) / 2)


def test_clip_of_no_tokens(clip) -> None:
    empty = clip.select(torch.zeros(24, dtype=torch.bool))
    for changed in many(empty, 5, flip=True, time_reversal=True, color_jitter=1.0, noise=0.1):
        assert len(changed.detections) == 0
        assert changed.patches.shape == (0, 3, 7, 7)


@pytest.mark.parametrize("name", ["brightness", "noise", "token_dropout", "color_jitter", "jitter"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=f"INPUT.PERSISTENCE.{name.upper()} is -0.1; give a"):
        TokenAugmentation(**{name: -0.1})
