"""Videos through the predictor that the demo uses, with the shipped preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidseg import rle
from vidseg.config import load_config
from vidseg.modeling import build_model
from vidseg.predictor import VideoPredictor
from vidseg.projects.persistence.clips import PersistenceClips

CHECKOUT = Path(__file__).resolve().parents[3]
CONFIG = CHECKOUT / "projects" / "persistence" / "same.yaml"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> VideoPredictor:
    """The preset with weights as they are before training."""
    small = ["MODEL.PERSISTENCE.HIDDEN_DIM", 32, "MODEL.PERSISTENCE.NUM_LAYERS", 2]
    cfg = load_config(CONFIG, [*small, "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(build_model(cfg).state_dict(), file)
    return VideoPredictor.from_config(cfg, file)


def frames_of(num_clips: int) -> list[np.ndarray]:
    """Gives the frames of generated clips, one after the other, twice as large."""
    clips = PersistenceClips("same", "test")
    frames = torch.cat([clips[index].frames for index in range(num_clips)])
    large = frames.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return list(large.permute(0, 2, 3, 1).numpy())


def test_objects_of_a_clip_become_tracks(predictor: VideoPredictor) -> None:
    clip = PersistenceClips("same", "test")[0]
    result = predictor.predict(frames_of(1))
    assert predictor.class_names == ["transient", "persistent"]
    assert result.image_size == (128, 128)
    covered = found = 0
    for frame in range(16):
        masks = [rle.decode(track[frame]) for track in result.masks if track[frame] is not None]  # type: ignore[arg-type]
        for index in np.flatnonzero(np.asarray(clip.objects.visible)[:, frame]):
            y, x = (2 * np.asarray(clip.objects.centers)[index, frame]).round().astype(int)
            covered += 1
            found += any(mask[y.clip(0, 127), x.clip(0, 127)] for mask in masks)
    assert found >= 0.9 * covered


def test_long_videos_and_their_explanation(predictor: VideoPredictor) -> None:
    frames = frames_of(3)
    result, explanation = predictor.explain(frames, max_tracks=2)
    assert result.num_frames == 48
    assert {label for label in result.labels.tolist()} <= {0, 1}
    attention = list(explanation.attention())
    assert len(attention) == 48
    for row, track in enumerate(explanation.track_ids):
        masks = result.masks[result.track_ids.tolist().index(track)]
        for frame, mask in zip(attention, masks, strict=True):
            total = float(frame.maps[row].sum())
            assert total == pytest.approx(0.0 if mask is None else 1.0, abs=1e-4)
    assert explanation.frame_weights is not None
    assert explanation.frame_weights.sum(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_black_frames_and_single_pictures_have_results(predictor: VideoPredictor) -> None:
    black = [np.zeros((50, 70, 3), dtype=np.uint8)] * 9
    assert len(predictor.predict(black)) == 0
    assert predictor.predict(frames_of(1)[:1]).num_frames == 1
