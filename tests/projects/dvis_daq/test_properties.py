"""What must hold for any weights: windows, batches, order of queries, options, ends of range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.golden_utils import apply_rule_weights, load_case
from vidseg.config import CfgNode
from vidseg.errors import UserError
from vidseg.modeling import build_model
from vidseg.modeling.meta_arch import ResultPlace, ResultSettings
from vidseg.projects.dvis_daq.memory import TrackRules
from vidseg.projects.dvis_daq.online import OnlineModel
from vidseg.projects.dvis_daq.sessions import OnlineSession
from vidseg.structures import VideoInstances

LIVELY = TrackRules(0.6, 0.4, 0.5, "gate", max_missed=2, min_length=2)
"""Thresholds at which the rule's weights give births, gaps and ends in a few frames."""

BOTH = pytest.mark.parametrize("stage", ["online", "offline"])


@pytest.fixture(scope="module")
def models() -> dict[str, OnlineModel]:
    return {}


@pytest.fixture
def make(tiny_cfg: Callable[..., CfgNode], models: dict[str, OnlineModel]) -> Callable[..., Any]:
    def build(stage: str) -> OnlineModel:
        if stage not in models:
            model = build_model(tiny_cfg("dvis_daq", stage)).eval()
            apply_rule_weights(model, load_case("dvis_daq/offline_end_to_end"))
            model.rules = LIVELY
            models[stage] = model
        return models[stage]

    return build


def video(num_frames: int = 7, height: int = 40, width: int = 56, *, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(num_frames, 3, 6, 8, generator=generator)
    frames = F.interpolate(coarse, size=(height, width), mode="bilinear").byte()
    return {
        "frames": frames,
        "height": 2 * height - 5,
        "width": width + 3,
        "video_id": seed,
        "frame_indices": list(range(num_frames)),
    }


def windowed(model: OnlineModel, sample: dict, sizes: list[int]) -> VideoInstances:
    size = (sample["height"], sample["width"])
    session = model.start(output_size=size, frame_indices=sample["frame_indices"])
    for window in sample["frames"].split(sizes):
        session.step(window)
    return session.finish()


def assert_same(one: VideoInstances, other: VideoInstances, *, ids: bool = True) -> None:
    torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=1e-4)
    assert torch.equal(one.labels, other.labels)
    if ids:
        assert torch.equal(one.track_ids, other.track_ids)
    assert one.image_size == other.image_size
    assert one.frame_indices == other.frame_indices
    left, right = one.masks_tensor(), other.masks_tensor()
    assert (left != right).sum() <= 1e-4 * left.numel()


@BOTH
def test_windows_of_any_sizes_give_one_result(stage, make) -> None:
    model, sample = make(stage), video()
    whole = windowed(model, sample, [7])
    assert len(whole) == 10
    assert len(whole.track_ids.unique()) > 2
    for sizes in ([1] * 7, [3, 3, 1], [1, 6]):
        assert_same(windowed(model, sample, sizes), whole)


@BOTH
def test_a_batch_of_unequal_videos_is_as_good_as_one_after_the_other(stage, make) -> None:
    model = make(stage)
    samples = [video(7, seed=0), video(3, 33, 71, seed=1), video(1, 64, 32, seed=2)]
    together = model(samples)
    for sample, result in zip(samples, together, strict=True):
        assert_same(result, model([sample])[0])
        assert result.image_size == (sample["height"], sample["width"])
        shape = (len(result), len(sample["frames"]), sample["height"], sample["width"])
        assert result.masks_tensor().shape == shape


@BOTH
def test_the_order_of_queries_does_not_matter(stage, make) -> None:
    model, sample = make(stage), video(seed=3)
    before = model([sample])[0]
    predictor = model.sem_seg_head.predictor
    saved = {name: value.clone() for name, value in predictor.state_dict().items()}
    order = torch.randperm(len(predictor.query_feat.weight))
    try:
        with torch.no_grad():
            for table in (predictor.query_feat, predictor.query_embed):
                table.weight.copy_(table.weight[order].clone())
        after = model([sample])[0]
    finally:
        predictor.load_state_dict(saved)
    # Ids count births, and births of one frame come in the order of queries.
    assert_same(before, after, ids=False)


@BOTH
def test_results_hold_at_the_ends_of_the_range(stage, make) -> None:
    model, sample = make(stage), video(3)
    rules, settings = model.rules, model.result_settings
    training = model.training_settings
    with_fill = replace(training.refiner_input, fill=True)
    try:
        model.rules = replace(LIVELY, select_threshold=2.0, first_threshold=2.0)
        model.training_settings = replace(training, refiner_input=with_fill)
        filled = model([sample])[0]
        assert (len(filled) > 0) == (stage == "offline")  # the fill needs no track
        unfilled = replace(training.refiner_input, fill=False)
        model.training_settings = replace(training, refiner_input=unfilled)
        assert len(model([sample])[0]) == 0
        # Exactly one track: the published code would return nothing.
        model.rules = replace(LIVELY, max_births=1, select_threshold=2.0, max_missed=9)
        model.result_settings = replace(settings, max_num=999)
        one = model([sample])[0]
        assert one.track_ids.unique().tolist() == [0]
        assert len(one) == model.num_classes
    finally:
        model.rules, model.result_settings = rules, settings
        model.training_settings = training


@BOTH
def test_no_frames_and_no_sizes(stage, make) -> None:
    model = make(stage)
    assert len(model.start().finish()) == 0
    session = model.start()
    session.step(video(2)["frames"])
    result = session.finish()
    assert result.image_size == (40, 56)
    assert result.frame_indices == [0, 1]


@BOTH
def test_one_label_per_track(stage, make) -> None:
    model, sample = make(stage), video()
    settings = model.result_settings
    try:
        model.result_settings = replace(settings, max_num=40)
        several = model([sample])[0]
        model.result_settings = replace(settings, max_num=40, one_label_per_track=True)
        single = model([sample])[0]
    finally:
        model.result_settings = settings
    assert len(several.track_ids.unique()) < len(several)
    assert len(single.track_ids.unique()) == len(single)
    torch.testing.assert_close(single.scores[0], several.scores[0])


@BOTH
def test_mask_quality_lowers_scores_and_sorts_again(stage, make) -> None:
    model, sample = make(stage), video()
    settings = model.result_settings
    try:
        model.result_settings = replace(settings, mask_quality=False)
        plain = model([sample])[0]
        model.result_settings = replace(settings, mask_quality=True)
        rated = model([sample])[0]
    finally:
        model.result_settings = settings
    assert (rated.scores.diff() <= 0).all()

    def key(result: VideoInstances, row: int) -> tuple[int, int]:
        return int(result.track_ids[row]), int(result.labels[row])

    scores = {key(plain, row): plain.scores[row] for row in range(len(plain))}
    for row in range(len(rated)):
        share = rated.scores[row] / scores[key(rated, row)]
        assert 0.5 < share < 1  # a mean of probabilities above one half


def test_online_windows_report_the_tracks_they_see(make) -> None:
    model, sample = make("online"), video(9)
    parts = replace(model.parts(), settings=ResultSettings(max_num=99, one_label_per_track=True))
    session = OnlineSession(parts, ResultPlace((40, 56), range(100, 109)))
    known: set[int] = set()
    for start in range(0, 9, 3):
        window = session.step(sample["frames"][start : start + 3])
        assert window.frame_indices == list(range(100 + start, 103 + start))
        assert window.masks_tensor().shape == (len(window), 3, 40, 56)
        assert window.masks_tensor().flatten(2).any(2).any(1).all()
        known.update(window.track_ids.tolist())
    final = session.finish()
    assert known.issuperset(final.track_ids.tolist())
    assert final.frame_indices == list(range(100, 109))


def test_forgetting_hopeless_tracks_changes_nothing(make) -> None:
    """The result is that of a session which keeps everything, with a bounded number of tracks."""
    model, sample = make("online"), video(30, seed=5)
    parts = replace(model.parts(), settings=ResultSettings(max_num=3))
    wise, naive = (OnlineSession(parts, ResultPlace()) for _ in range(2))
    naive._forget_hopeless = lambda: None
    for window in sample["frames"].split(3):
        wise.feed(window)
        naive.feed(window)
        assert len(wise._state.ended) <= 3
        assert len(wise._history._frames) <= 3 + len(wise._state.memory)
    assert len(naive._state.ended) > 10
    assert_same(wise.finish(), naive.finish())


def test_sessions_are_apart(make) -> None:
    """Two videos in turns through one model, as a server would do it."""
    model, samples = make("online"), [video(4, seed=1), video(4, seed=2)]
    sessions = [model.start(frame_indices=range(4)) for _ in samples]
    for start in (0, 2):
        for session, sample in zip(sessions, samples, strict=True):
            session.step(sample["frames"][start : start + 2])
    for session, sample in zip(sessions, samples, strict=True):
        alone = model.start(frame_indices=range(4))
        alone.step(sample["frames"])
        assert_same(session.finish(), alone.finish())


@pytest.mark.parametrize(("stage", "learning"), [("online", "tracker."), ("offline", "refiner.")])
def test_only_the_newest_part_learns(stage, learning, tiny_cfg) -> None:
    model = build_model(tiny_cfg("dvis_daq", stage)).train()
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {name for name, _ in model.named_parameters() if name.startswith(learning)}
    assert not any(m.training for m in model.backbone.modules())
    assert not any(m.training for m in model.sem_seg_head.modules())
    assert model.tracker.training == (stage == "online")
    assert "daq_criterion.empty_weight" in model.state_dict()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("MODEL.VIDEO_HEAD.NUM_NEW_INS", 10, "NUM_OBJECT_QUERIES"),
        ("MODEL.SEM_SEG_HEAD.MASK_DIM", 32, "HIDDEN_DIM"),
    ],
)
def test_contradicting_keys_are_named(key, value, words, tiny_cfg) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build_model(tiny_cfg("dvis_daq", "online", key, value))
    assert key in str(caught.value)
