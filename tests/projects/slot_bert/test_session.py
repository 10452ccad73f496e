"""Slots as tracks of a video: ids, scores, sizes, windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.projects.slot_bert.picture_ground import ColorSlots, moving_squares
from vidseg import rle
from vidseg.data.transforms import Resize
from vidseg.errors import DataError, UserError
from vidseg.modeling.meta_arch import ResultPlace
from vidseg.predictor import VideoPredictor
from vidseg.projects.slot_bert.session import SlotRecorder, SlotSession, resize
from vidseg.structures import VideoInstances


def run(frames: torch.Tensor, window: int, **options: object) -> VideoInstances:
    place = options.pop("place", ResultPlace())
    session = SlotSession(ColorSlots(), place, **options)  # type: ignore[arg-type]
    for part in frames.split(window):
        session.feed(part)
    return session.finish()


def test_a_slot_is_a_track_whatever_the_windows() -> None:
    frames, labels = moving_squares(7)
    whole = run(frames, 7)
    assert whole.track_ids.tolist() == [0, 1, 2]
    assert whole.labels.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(whole.masks_tensor().numpy()[1], labels == 1)
    assert ((whole.scores > 0.9) & (whole.scores <= 1)).all()
    for window in (1, 3):
        other = run(frames, window)
        assert other.masks == whole.masks
        torch.testing.assert_close(other.scores, whole.scores)


def test_score_tells_how_clear_a_slot_is() -> None:
    frames, _ = moving_squares(2)
    blurred = frames.clone()
    red = frames[:, 0] > 200
    blurred[:, 0][red], blurred[:, 2][red] = 170, 25  # between red and grey
    clear, unclear = run(frames, 2), run(blurred, 2)
    assert unclear.scores[1] < clear.scores[1] - 0.05
    assert unclear.scores.min() >= 0.5  # all are shown by default


def test_slots_without_pixels_and_those_beyond_the_limit_are_left_out() -> None:
    frames, _ = moving_squares(3)
    frames[:, :, 20:] = 90  # no blue square
    assert run(frames, 2).track_ids.tolist() == [0, 1]
    assert run(frames, 2, max_num=1).track_ids.tolist() == [0]
    assert [mask is None for mask in run(moving_squares(1)[0], 1).masks[0]] == [False]


def test_masks_have_the_size_of_the_video_and_the_model_its_own() -> None:
    frames, labels = moving_squares(3)
    result = run(frames, 2, size=(16, 16), place=ResultPlace((64, 48)))
    assert result.image_size == (64, 48)
    tall = np.kron(labels[0] == 1, np.ones((2, 1)))
    mask = rle.decode(result.masks[1][0])  # type: ignore[arg-type]
    assert mask.shape == (64, 48)
    assert abs(mask.mean() - tall.mean()) < 0.02


def test_steps_tell_of_their_own_frames() -> None:
    frames, _ = moving_squares(5)
    session = SlotSession(ColorSlots(), ResultPlace(indices=[4, 5, 6, 9, 10]))
    windows = [session.step(part) for part in frames.split(2)]
    assert [window.frame_indices for window in windows] == [[4, 5], [6, 9], [10]]
    assert windows[1].masks == [track[2:4] for track in session.finish().masks]


def test_streaming_keeps_no_masks() -> None:
    frames, _ = moving_squares(6)
    model = ColorSlots()
    session = SlotSession(model, ResultPlace())
    streamed = [session.stream(part) for part in frames.split(2)]
    assert [window.frame_indices for window in streamed] == [[0, 1], [2, 3], [4, 5]]
    assert streamed[2].masks == [track[4:] for track in run(frames, 6).masks]
    assert model.calls == [(2, 0), (2, 2), (2, 4)]
    assert session.finish().num_frames == 0


def test_clips_of_a_video_follow_on() -> None:
    frames, _ = moving_squares(5)
    session = SlotSession(ColorSlots(), ResultPlace())
    session.feed(frames[:3])
    session.next_clip()
    session.feed(frames[3:])
    result = session.finish()
    assert result.frame_indices == [3, 4]
    assert result.masks == [track[3:] for track in run(frames, 5).masks]


def test_frames_of_another_size_are_refused() -> None:
    session = SlotSession(ColorSlots(), ResultPlace(), size=(16, 16))
    session.feed(moving_squares(1, 32)[0])
    with pytest.raises(DataError, match=r"frames of 40x40 come after frames of 32x32"):
        session.feed(moving_squares(1, 40)[0])


def test_diverged_weights_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ColorSlots()
    session = SlotSession(model, ResultPlace())
    session.feed(moving_squares(2)[0])
    outputs, _ = model.stream(moving_squares(3)[0])
    outputs["masks"][1, 0, 0, 0] = float("nan")
    monkeypatch.setattr(model, "stream", lambda frames, state: (outputs, state))
    with pytest.raises(UserError, match="masks of frame 3 are no numbers; the weights have"):
        session.feed(moving_squares(3)[0])


def test_a_session_without_frames_has_no_tracks() -> None:
    assert len(SlotSession(ColorSlots(), ResultPlace()).finish()) == 0


def test_frames_are_resized_as_those_of_data_sets() -> None:
    frames, _ = moving_squares(2)
    small = resize(frames, (16, 8))
    image = frames[1].permute(1, 2, 0).numpy()
    expected = Resize((32, 32), (16, 8)).image(image)
    np.testing.assert_array_equal(small[1].permute(1, 2, 0).numpy(), expected)
    assert resize(frames, None) is frames
    assert resize(frames, (0, 0)) is frames
    assert resize(frames, (64, 48)).shape == (2, 3, 64, 48)


def test_recorder_shows_where_slots_looked() -> None:
    frames, _ = moving_squares(5)
    model = ColorSlots()
    recorder = SlotRecorder(model)
    found = []
    for start in (0, 2, 4):
        found += recorder.attention(frames[start : start + 2], start, [1, 2])
    assert model.calls == [(2, 0), (2, 2), (1, 4)]
    assert len(found) == 5
    for one in found:
        assert one.covered == (40 / 32, 1.0)  # the model pads by eight rows
        assert one.queries == [1, 2]
        torch.testing.assert_close(one.maps.sum((1, 2)), torch.ones(2))
    row, column = np.unravel_index(int(found[3].maps[0].argmax()), found[3].maps.shape[1:])
    assert (int(row), int(column)) in [(1, 1), (1, 2), (0, 1)]  # the red square
    recorder.attention(frames, 0, [0])  # a video from its start
    assert model.calls[-1] == (5, 0)


class Startable(torch.nn.Module):
    """What the predictor takes."""

    def start(self, *, output_size: tuple[int, int]) -> SlotSession:
        return SlotSession(ColorSlots(), ResultPlace(output_size))


def test_predictor_follows_slots_through_a_file(tmp_path: Path) -> None:
    frames, labels = moving_squares(5)
    np.save(tmp_path / "clip.npy", frames.numpy())
    predictor = VideoPredictor(Startable(), window_size=2, class_names=["object"])
    result = predictor.predict(tmp_path / "clip.npy")
    np.testing.assert_array_equal(result.masks_tensor().numpy()[2], labels == 2)
    parts = list(predictor.stream(tmp_path / "clip.npy"))
    assert [part.frame_indices for part in parts] == [[0, 1], [2, 3], [4]]
