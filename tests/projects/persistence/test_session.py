"""Videos through the session: windows, memory, tracks and their masks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from vidseg import rle
from vidseg.errors import DataError
from vidseg.modeling.meta_arch import ResultPlace
from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.discs import encode_disc
from vidseg.projects.persistence.prediction import TokenPrediction
from vidseg.projects.persistence.session import PersistenceSession
from vidseg.projects.persistence.trackers import HungarianTracker
from vidseg.structures import VideoInstances

RADIUS = 3.0


@dataclass
class DotModel:
    """Finds white dots; a dot's red value above 128 tells that it stays."""

    tracker: HungarianTracker = field(default_factory=HungarianTracker)
    windows: list[tuple[int, int]] = field(default_factory=list)  # frames and blobs of each

    def detect(self, frames: Tensor) -> tuple[Detections, Tensor]:
        frame, y, x = (frames[:, 1] == 255).nonzero().T
        n = len(frame)
        found = Detections(
            frame=frame,
            y=y.float(),
            x=x.float(),
            sigma=torch.full((n,), RADIUS / 2**0.5),
            response=torch.ones(n),
            brightness=torch.ones(n),
            circularity=torch.ones(n),
            confidence=torch.ones(n),
            color=torch.ones(n, 3),
            num_frames=len(frames),
            size=(frames.shape[2], frames.shape[3]),
        )
        return found, frames[frame, :, y, x][:, :, None, None]

    def predict(self, detections: Detections, patches: Tensor) -> TokenPrediction:
        self.windows.append((detections.num_frames, len(detections)))
        n = len(detections)
        logits = (patches[:, 0, 0, 0].float() - 128) / 32
        logits = logits + 0.1 * detections.frame  # so that it matters which window it is
        none = torch.zeros(n)
        kept = torch.arange(n)
        return TokenPrediction(
            detections, logits, {"layer 1": none}, none.diag(), None, None, kept, kept
        )


def video(num_frames: int, size: tuple[int, int] = (32, 48)) -> Tensor:
    """Gives a dot that stays, moving, and one that is there in frames 2 to 4, not moving."""
    frames = torch.zeros(num_frames, 3, *size, dtype=torch.uint8)
    for t in range(num_frames):
        frames[t, :, 8, 4 + t % 40] = torch.tensor([250, 255, 255], dtype=torch.uint8)
        if 2 <= t < 5:
            frames[t, :, 24, 20] = torch.tensor([10, 255, 255], dtype=torch.uint8)
    return frames


def run(
    frames: Tensor, *, step: int = 7, model: DotModel | None = None, **settings: int
) -> VideoInstances:
    session = PersistenceSession(model or DotModel(), ResultPlace(), **settings)
    for part in frames.split(step):
        assert len(session.step(part)) == 0  # nothing is known before the end
    return session.finish()


def test_tracks_have_class_score_and_discs() -> None:
    result = run(video(30))
    assert result.labels.tolist() == [1, 0]
    assert (result.scores > 0.5).all()
    assert [sum(m is not None for m in track) for track in result.masks] == [30, 3]
    mask = rle.decode(result.masks[0][10])  # type: ignore[arg-type]
    assert mask.shape == (32, 48)
    assert mask[8, 14]
    assert mask.sum() == pytest.approx(np.pi * RADIUS**2, rel=0.15)
    assert result.frame_indices == list(range(30))


@pytest.mark.parametrize("num_frames", [5, 16, 17, 24, 41])
def test_windows_have_the_trained_length_and_reach_the_end(num_frames: int) -> None:
    model = DotModel()
    session = PersistenceSession(model, ResultPlace(), window=16)
    for frame in video(num_frames).split(1):
        session.step(frame)
    session.finish()
    assert [frames for frames, _ in model.windows] == [min(num_frames, 16)] * len(model.windows)
    assert len(model.windows) == 1 + max(0, -(-(num_frames - 16) // 8))


def test_the_result_does_not_depend_on_the_steps() -> None:
    frames = video(41)
    expected = run(frames, step=41)
    for step in (1, 3, 16):
        result = run(frames, step=step)
        assert torch.equal(result.scores, expected.scores)
        assert result.masks == expected.masks


def test_a_logit_is_the_mean_over_windows() -> None:
    frames = torch.zeros(24, 3, 32, 48, dtype=torch.uint8)
    frames[10, :, 8, 8] = torch.tensor([128, 255, 255], dtype=torch.uint8)
    result = run(frames)  # frame 10 is number 10 of the first window, and 2 of the second
    assert result.scores.tolist() == pytest.approx([1 / (1 + np.exp(-0.6))])


def test_patches_of_a_window_and_a_half_are_kept() -> None:
    session = PersistenceSession(DotModel(), ResultPlace(), window=16)
    held = []
    for frame in video(100).split(1):
        session.step(frame)
        held.append(session.num_patches)
    assert max(held) <= 24 + 3  # one dot, and a second one for three frames
    assert held[-1] <= 24


def test_masks_come_at_the_size_of_the_video() -> None:
    session = PersistenceSession(DotModel(), ResultPlace((96, 96), range(100, 120)))
    session.step(video(20, (32, 48)))
    result = session.finish()
    assert result.image_size == (96, 96)
    assert result.frame_indices == list(range(100, 120))
    box = rle.boxes([result.masks[0][0]])[0]  # type: ignore[list-item]
    assert box[0] + box[2] / 2 == pytest.approx((4 + 0.5) * 2, abs=1)
    assert box[1] + box[3] / 2 == pytest.approx((8 + 0.5) * 3, abs=1)
    assert box[2:] == pytest.approx([2 * RADIUS * 2, 2 * RADIUS * 3], abs=1.5)


def test_a_video_without_blobs_has_no_tracks_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        result = run(torch.zeros(10, 3, 32, 48, dtype=torch.uint8))
    assert len(result) == 0
    assert result.num_frames == 10
    assert "no blob in 10 frames of 48x32" in caplog.text


def test_a_session_without_frames() -> None:
    result = PersistenceSession(DotModel(), ResultPlace((8, 9))).finish()
    assert len(result) == 0
    assert result.image_size == (8, 9)


def test_the_longest_tracks_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = run(video(30), max_num=1)
    assert [sum(m is not None for m in track) for track in result.masks] == [30]
    assert "1 of 2 tracks are left out" in caplog.text


def test_frames_of_another_size_are_refused() -> None:
    session = PersistenceSession(DotModel(), ResultPlace())
    session.step(video(2))
    with pytest.raises(DataError, match=r"48x32"):
        session.step(video(2, (16, 16)))


def test_discs_are_those_that_drawing_gives() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.arange(20)[:, None], np.arange(31)
    for _ in range(200):
        y, x = rng.uniform(0, 19), rng.uniform(0, 30)
        vertical, horizontal = rng.uniform(0.3, 12, 2)
        drawn = ((rows - y) / vertical) ** 2 + ((columns - x) / horizontal) ** 2 <= 1
        drawn[round(y), round(x)] = True
        encoded = encode_disc((y, x), (vertical, horizontal), (20, 31))
        assert np.array_equal(rle.decode(encoded), drawn)
