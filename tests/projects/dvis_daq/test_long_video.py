"""Videos too long for memory, for one result, or without an end."""

from __future__ import annotations

import gc
import io
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.golden_utils import apply_rule_weights, load_case
from vidseg import VideoPredictor
from vidseg.config import CfgNode
from vidseg.errors import ConfigError, DataError, ResourceError
from vidseg.modeling import build_model
from vidseg.modeling.meta_arch import ResultSettings
from vidseg.projects.dvis_daq.memory import TrackRules
from vidseg.projects.dvis_daq.online import OnlineModel
from vidseg.projects.dvis_daq.settings import RefinerInput
from vidseg.structures import VideoInstances

LASTING = TrackRules(0.4, 0.3, max_missed=6, max_births=2)
"""Thresholds at which the rule's weights give tracks that last, and ends."""

SIZE = (40, 56)
BOTH = pytest.mark.parametrize("stage", ["online", "offline"])
ALL = pytest.mark.parametrize("stage", ["segmenter", "online", "offline"])


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {}


@pytest.fixture
def make(tiny_cfg: Callable[..., CfgNode], models: dict[str, Any]) -> Callable[[str], Any]:
    def build(stage: str) -> OnlineModel:
        if stage not in models:
            model = build_model(tiny_cfg("dvis_daq", stage)).eval()
            apply_rule_weights(model, load_case("dvis_daq/offline_end_to_end"))
            model.rules = LASTING
            model.result_settings = ResultSettings(max_num=30, one_label_per_track=True)
            models[stage] = model
        return models[stage]

    return build


def frames_of(num_frames: int, *, seed: int = 0) -> torch.Tensor:
    """Pictures that change slowly into others."""
    generator = torch.Generator().manual_seed(seed)
    ends = 255 * torch.rand(2, 3, 6, 8, generator=generator)
    share = torch.linspace(0, 1, num_frames)[:, None, None, None]
    coarse = (1 - share) * ends[0] + share * ends[1]
    return F.interpolate(coarse, size=SIZE, mode="bilinear").byte()


def sample_of(frames: torch.Tensor, **keys: Any) -> dict[str, Any]:
    return {"frames": frames, "height": SIZE[0], "width": SIZE[1], "video_id": 1, **keys}


def endless() -> Iterator[np.ndarray]:
    frames = frames_of(7).permute(0, 2, 3, 1).numpy()
    while True:
        yield from frames


# ---- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [True, False])
def test_what_lies_on_disk_changes_nothing(fill, make, monkeypatch) -> None:
    model, sample = make("offline"), sample_of(frames_of(9))
    settings = replace(model.training_settings, refiner_input=RefinerInput(8, 12, fill))
    monkeypatch.setattr(model, "training_settings", settings)
    results = []
    for memory_mb in (64, 0.3, 0):
        monkeypatch.setattr(model, "memory_mb", memory_mb)
        results += model([sample])
    assert len(results[0]) == (12 if fill else 8)
    for other in results[1:]:
        assert torch.equal(results[0].scores, other.scores)
        assert torch.equal(results[0].track_ids, other.track_ids)
        assert results[0].masks == other.masks


def test_the_bound_is_kept_and_what_is_over_it_lies_in_the_file(make, monkeypatch) -> None:
    model = make("offline")
    monkeypatch.setattr(model, "memory_mb", 0.25)
    session = model.start()
    sizes = []
    for window in frames_of(12).split(3):
        session.step(window)
        sizes.append(session._kept.file_bytes)
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]
    held = [v for v in session._kept.features._kept.values() if isinstance(v, torch.Tensor)]
    assert sum(v.numel() * v.element_size() for v in held) <= 2**18


def test_the_bound_comes_from_the_config(tiny_cfg) -> None:
    key = "MODEL.REFINER.MEMORY_MB"
    assert build_model(tiny_cfg("dvis_daq", "offline", key, 5)).memory_mb == 5
    with pytest.raises(ConfigError, match=r"MEMORY_MB is -1.*set 0 or more"):
        build_model(tiny_cfg("dvis_daq", "offline", key, -1))


def test_a_full_disk_is_named_with_the_key(make, monkeypatch) -> None:
    model = make("offline")
    monkeypatch.setattr(model, "memory_mb", 0)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))
    with pytest.raises(ResourceError, match=r"No space left.*TMPDIR.*MODEL\.REFINER\.MEMORY_MB"):
        model([sample_of(frames_of(3))])


# ---- streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["segmenter", "online"])
def test_a_stream_gives_what_steps_give(stage, make) -> None:
    frames = frames_of(9)
    stepped, streamed = make(stage).start(), make(stage).start()
    for window in frames.split(2):
        one, other = stepped.step(window), streamed.stream(window)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.track_ids, other.track_ids)
        assert one.masks == other.masks
        assert one.frame_indices == other.frame_indices


@pytest.mark.parametrize("stage", ["segmenter", "online"])
def test_an_endless_source_is_answered_without_growing(stage, make) -> None:
    windows = VideoPredictor(make(stage), window_size=3).stream(endless())

    def held_after(count: int) -> int:
        for _ in range(count):
            assert len(next(windows))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = held_after(4)
        assert held_after(8) - first < 30_000  # the masks of 24 frames take 200 kB
    finally:
        tracemalloc.stop()


# ---- clips ------------------------------------------------------------------------------------


def test_clips_of_an_online_model_go_on_as_one_video(make) -> None:
    model, frames = make("online"), frames_of(10)
    (whole,) = model([sample_of(frames)])
    first = model([sample_of(frames[:6], keep=False, long_video_start_fidx=0)])[0]
    second = model([sample_of(frames[6:], keep=True, long_video_start_fidx=6)])[0]
    assert (first.frame_indices, second.frame_indices) == (list(range(6)), [6, 7, 8, 9])
    shared = set(whole.track_ids.tolist()) & set(second.track_ids.tolist())
    assert shared
    assert shared & set(first.track_ids.tolist())  # born in the first clip
    masks = dict(zip(whole.track_ids.tolist(), whole.masks, strict=True))
    for track, row in zip(second.track_ids.tolist(), second.masks, strict=True):
        if track in shared:
            assert row == masks[track][6:]
    scores = pairs(whole)
    for pair, score in pairs(second).items():
        if pair in scores:
            assert score == pytest.approx(scores[pair], abs=1e-6)


def pairs(result: VideoInstances) -> dict[tuple[int, int], float]:
    keys = zip(result.track_ids.tolist(), result.labels.tolist(), strict=True)
    return dict(zip(keys, result.scores.tolist(), strict=True))


@ALL
def test_a_clip_covers_its_own_frames_alone(stage, make) -> None:
    model, frames = make(stage), frames_of(10)
    size, session = SIZE, make(stage).start(output_size=SIZE)
    spans = []
    for clip in frames.split([4, 5, 1]):
        for window in clip.split(2):
            session.step(window)
        result = session.finish()
        assert len(result)
        assert result.image_size == size
        assert all(any(track) for track in result.masks if stage == "online")
        spans.append(result.frame_indices)
        session.next_clip()
    assert spans == [[0, 1, 2, 3], [4, 5, 6, 7, 8], [9]]
    assert len(session.finish()) == 0
    del model


@torch.no_grad()
def test_an_offline_clip_starts_from_the_tracks_of_the_clip_before(make) -> None:
    """The published code fails here: it pads by the frames before the clip, a negative number."""
    session = make("offline").start(output_size=SIZE)
    frames = frames_of(10)
    session.step(frames[:6])
    born = set(session.instances().ids.tolist())
    assert len(session.finish())
    session.next_clip([100, 101, 102, 103])
    session.step(frames[6:])
    state = session._state
    tracks = state.tracks()
    early = tracks.rows(tracks.starts < 6)
    assert len(early)
    sequences = session.instances()
    assert sequences.queries.shape[1] == 4
    for track, start, length in zip(early.ids, early.starts, early.lengths, strict=True):
        row = (sequences.ids == track).nonzero()[0, 0]
        lives = torch.arange(6, 10) < start + length
        assert torch.equal(~sequences.padding[row], lives)
        assert int(track) in born
    result = session.finish()
    assert result.frame_indices == [100, 101, 102, 103]
    assert all(len(track) == 4 for track in result.masks)
    filled = set(sequences.ids.tolist()) - set(tracks.ids.tolist())
    assert not filled & born  # an id means one thing in all clips of a video


def test_sample_keys_equal_a_session(make) -> None:
    for stage in ("segmenter", "online", "offline"):
        model, frames = make(stage), frames_of(9)
        session = model.start(output_size=SIZE)
        for number, clip in enumerate(frames.split([4, 3, 2])):
            first = (0, 4, 7)[number]
            keys = {"keep": number > 0, "long_video_start_fidx": first}
            (one,) = model([sample_of(clip, **keys)])
            if number:
                session.next_clip()
            session.step(clip)
            other = session.finish()
            assert one.frame_indices == other.frame_indices == list(range(first, first + len(clip)))
            torch.testing.assert_close(one.scores, other.scores)
            assert torch.equal(one.track_ids, other.track_ids)


@BOTH
def test_only_clips_are_remembered(stage, make) -> None:
    model, frames = make(stage), frames_of(6)
    (alone,) = model([sample_of(frames[3:])])
    model([sample_of(frames[:3], keep=False)])
    assert model._long_video is not None
    (apart,) = model([sample_of(frames[3:])])  # no keep: another video
    assert model._long_video is None
    assert torch.equal(apart.scores, alone.scores)
    assert apart.frame_indices == [0, 1, 2]
    (first,) = model([sample_of(frames[3:], keep=True)])  # nothing to go on with: the first clip
    assert torch.equal(first.scores, alone.scores)


def test_clips_out_of_order_are_refused(make) -> None:
    model, frames = make("online"), frames_of(4)
    model([sample_of(frames)])
    with pytest.raises(DataError, match=r"from frame 4 on.*there was none.*in order"):
        model([sample_of(frames, keep=True, long_video_start_fidx=4)])
    model([sample_of(frames, keep=False)])
    with pytest.raises(DataError, match=r"clip of video 2.*cannot go on.*video 1"):
        model([{**sample_of(frames, keep=True), "video_id": 2}])
    model([sample_of(frames, keep=False)])
    with pytest.raises(DataError, match="differ in size"):
        model([sample_of(frames[..., :48], keep=True)])
    (fresh,) = model([sample_of(frames)])
    assert fresh.frame_indices == [0, 1, 2, 3]


@ALL
def test_only_a_window_of_a_whole_video_is_ever_floats(stage, make, monkeypatch) -> None:
    model, preprocess, seen = make(stage), make(stage).preprocess, []

    def spy(frames: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append((frames.dtype, len(frames)))
        return preprocess(frames, **options)

    monkeypatch.setattr(model, "preprocess", spy)
    monkeypatch.setattr(model, "window_size", 2)
    model([sample_of(frames_of(5))])
    assert seen == [(torch.uint8, 2), (torch.uint8, 2), (torch.uint8, 1)]
