"""What tracks of a video read: maps over the frames, shares of the frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.projects.persistence.test_session import DotModel, video
from vidseg.modeling.meta_arch import RecordedSession, Recorder, ResultPlace
from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.explanation import AttentionRecorder
from vidseg.projects.persistence.prediction import TokenPrediction
from vidseg.projects.persistence.session import PersistenceSession


class BackwardModel(DotModel):
    """Every blob reads the first one of its window, and itself with half the weight."""

    def predict(self, detections: Detections, patches: Tensor) -> TokenPrediction:
        prediction = super().predict(detections, patches)
        matrix = torch.eye(len(detections)) / 3
        matrix[:, 0] += 2 / 3
        return replace(prediction, matrix=matrix)


def recorded(frames: Tensor) -> tuple[Recorder, list[int]]:
    session = PersistenceSession(BackwardModel(), ResultPlace(), window=16)
    recorder: Recorder = AttentionRecorder(session)
    outer = RecordedSession(session, recorder)
    for part in frames.split(5):
        outer.step(part)
    return recorder, outer.finish().track_ids.tolist()


def test_maps_lie_where_the_blobs_are_that_were_read() -> None:
    frames = video(16)
    recorder, (stays, goes) = recorded(frames)
    windows = [
        recorder.attention(part, 5 * n, [stays, goes]) for n, part in enumerate(frames.split(5))
    ]
    maps = [frame for window in windows for frame in window]
    assert len(maps) == 16
    here = maps[12].maps[0]
    assert here.shape == (32, 48)
    assert float(here.sum()) == pytest.approx(1)
    assert float(here[:, :10].sum()) == pytest.approx(2 / 3, abs=0.02)  # the dot of frame 0
    assert float(here[:, 11:].sum()) == pytest.approx(1 / 3, abs=0.02)
    assert maps[12].queries == [0, -1]
    assert maps[3].queries == [0, 1]
    assert float(maps[12].maps[1].abs().sum()) == 0


def test_shares_of_frames_sum_to_one_and_follow_the_windows() -> None:
    recorder, tracks = recorded(video(30))
    weights = recorder.frame_weights(tracks)
    assert weights is not None
    assert weights.shape == (2, 30)
    assert weights.sum(1).tolist() == pytest.approx([1, 1])
    # Windows begin at 0, 8 and 14; blobs are explained by the one that they lie in the middle of.
    assert weights[0].topk(3).indices.sort().values.tolist() == [0, 8, 14]
    assert weights[1].argmax() == 0


def test_recording_leaves_the_result_as_it_is() -> None:
    frames = video(30)
    plain = PersistenceSession(BackwardModel(), ResultPlace())
    plain.step(frames)
    expected = plain.finish()
    session = PersistenceSession(BackwardModel(), ResultPlace())
    AttentionRecorder(session)
    session.step(frames)
    result = session.finish()
    assert torch.equal(result.scores, expected.scores)
    assert result.masks == expected.masks
