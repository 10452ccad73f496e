"""Whole models against recorded runs of the published code, and the names of its weights."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from tests.golden_utils import GOLDEN, GoldenCase, load_case
from vidseg.config import load_config
from vidseg.modeling import build_model
from vidseg.modeling.meta_arch.base import SegmenterBase
from vidseg.projects.dvis_daq.inference import track_window
from vidseg.projects.dvis_daq.memory import TrackMemory
from vidseg.structures import VideoInstances

OVERRIDES = [
    ("MODEL.DEVICE", "cpu"),
    ("MODEL.VIDEO_HEAD.KICK_OUT_FRAME_NUM", 3),
    ("MODEL.WEIGHTS", ""),
]


def build(case: GoldenCase) -> SegmenterBase:
    model = build_model(load_config(case.config, [x for pair in OVERRIDES for x in pair])).eval()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == case.names_shapes
    model.load_state_dict({**model.state_dict(), **case.state_dict()})
    return model


@pytest.fixture(scope="module")
def offline() -> tuple[GoldenCase, SegmenterBase]:
    case = load_case("dvis_daq/offline_end_to_end")
    return case, build(case)


@pytest.fixture(scope="module")
def online() -> tuple[GoldenCase, SegmenterBase]:
    case = load_case("dvis_daq/online_end_to_end")
    return case, build(case)


def sample_of(case: GoldenCase) -> dict:
    height, width = case.inputs["output_height_width"].tolist()
    return {
        "frames": case.inputs["video"],
        "height": height,
        "width": width,
        "video_id": 1,
        "frame_indices": list(range(8)),
    }


def assert_same_instances(result: VideoInstances, golden: dict) -> None:
    """Instances by label and score, in any order; masks but for a few pixels."""
    shape = golden["final_pred_masks_shape"].tolist()
    bits = np.unpackbits(golden["final_pred_masks_packbits"].numpy())[: np.prod(shape)]
    masks = torch.from_numpy(bits.reshape(shape)).bool()
    assert len(result) == shape[0]
    assert sorted(result.labels.tolist()) == sorted(golden["final_pred_labels"].tolist())
    order = golden["final_pred_scores"].argsort(descending=True)
    torch.testing.assert_close(
        result.scores.sort(descending=True).values,
        golden["final_pred_scores"][order],
        atol=1e-4,
        rtol=0,
    )
    own = result.scores.argsort(descending=True)
    assert torch.equal(result.labels[own], golden["final_pred_labels"][order])
    assert result.image_size == (shape[2], shape[3])
    differing = (result[own].masks_tensor() != masks[order]).sum()
    assert differing <= 1e-4 * masks.numel()


def test_online_result(online) -> None:
    case, model = online
    (result,) = model([sample_of(case)])
    assert_same_instances(result, case.outputs)
    # The published ids are rows of the table of tracks that are no noise; ours are identities.
    starts, lengths = case.outputs["hub_sT"], case.outputs["hub_length"]
    rows = ((lengths >= 4) | (starts + lengths == 8)).nonzero()[:, 0]
    own = result.scores.argsort(descending=True)
    order = case.outputs["final_pred_scores"].argsort(descending=True)
    assert torch.equal(result.track_ids[own], rows[case.outputs["final_pred_ids"][order]])


def test_offline_result(offline) -> None:
    case, model = offline
    (result,) = model([sample_of(case)])
    assert_same_instances(result, case.outputs)


@torch.no_grad()
def test_tracks_of_the_whole_model(online) -> None:
    case, model = online
    golden, parts = case.outputs, model.parts()
    memory = TrackMemory.empty(256, 26)
    frames, tracks = [], memory.as_ended()
    for start in (0, 5):
        window = model.segment(case.inputs["video"][start : start + 5])
        expected = golden["frame_embeds"][0].permute(1, 2, 0)[start : start + 5]
        torch.testing.assert_close(window.embeds, expected, atol=1e-3, rtol=1e-3)
        steps = track_window(parts.tracker, window, memory, parts.rules, parts.query_table)
        for after, tracked in steps:
            memory = after
            frames.append(tracked)
            tracks = tracks.joined(tracked.ended)
    dead = golden["hub_dead"].nonzero()[:, 0]
    assert torch.equal(tracks.ids, dead)
    tracks = tracks.joined(memory.as_ended())
    assert torch.equal(tracks.starts, golden["hub_sT"])
    assert torch.equal(tracks.lengths, golden["hub_length"])
    torch.testing.assert_close(
        tracks.positions, golden["hub_sim_guided_pos_embed"], atol=1e-3, rtol=1e-3
    )
    for t, frame in enumerate(frames):
        column = t - golden["hub_sT"][frame.ids]
        assert torch.equal(frame.visible, golden["hub_appearance"][frame.ids, column])
        expected = golden["hub_embeds"][frame.ids, column]
        torch.testing.assert_close(frame.embeds, expected, atol=1e-3, rtol=1e-3)
        area = (frame.masks > 0).sum((1, 2))
        assert ((area - golden["hub_mask_area"][frame.ids, column]).abs() <= 1).all()


def test_what_enters_the_refiner(offline) -> None:
    case, model = offline
    golden = case.outputs
    session = model.start(output_size=(80, 120))
    for window in case.inputs["video"].split(4):
        session.step(window)
    instances = session.instances()
    kept = golden["stage1_hub_row_of_kept_tracks"]
    assert sorted(instances.ids[:12].tolist()) == sorted(kept.tolist())
    assert instances.ids[12:].min() >= 44
    order = torch.cat([kept.argsort(), torch.arange(12, 30)])
    logits = golden["stage1_online_logits"][0, order]
    embeds = golden["stage1_instance_embeds"][0].permute(2, 1, 0)[order]  # (N, T, C)
    padding = golden["stage1_padding_masks"][0, order]
    # Linked queries are a set: bring both sides into one order.
    ours, theirs = instances.logits[12:, 0].argsort(), logits[12:, 0].argsort()
    ours = torch.cat([torch.arange(12), 12 + ours])
    theirs = torch.cat([torch.arange(12), 12 + theirs])
    torch.testing.assert_close(instances.logits[ours], logits[theirs], atol=1e-3, rtol=1e-3)
    queries = instances.queries.instances(0, 30)
    torch.testing.assert_close(queries[ours], embeds[theirs], atol=1e-3, rtol=1e-3)
    assert torch.equal(instances.padding[ours], padding[theirs])


@pytest.mark.parametrize("window", [pytest.param(1, marks=pytest.mark.slow), 3, 8])
def test_window_size_changes_nothing(window, offline, online) -> None:
    for case, model in (offline, online):
        size, model.window_size = model.window_size, window
        try:
            (result,) = model([sample_of(case)])
        finally:
            model.window_size = size
        assert_same_instances(result, case.outputs)


@pytest.mark.parametrize(
    "name",
    [
        "ovis_DAQ_Online_R50",
        "ovis_DAQ_Offline_R50",
        "ytvis19_DAQ_Online_R50",
        "ovis_DAQ_Online_SwinL",
        "ytvis19_DAQ_Offline_VitAdapterL",
        "ovis_DAQ_Offline_VitAdapterL",
    ],
)
def test_names_and_shapes_of_published_weights(name) -> None:
    folder = GOLDEN / "dvis_daq" / "official_keys"
    entries = json.loads(gzip.decompress((folder / f"{name}.json.gz").read_bytes()))
    cfg = load_config(folder / f"{name}.config.yaml", ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        model = build_model(cfg)
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == {key: tuple(shape) for key, shape, *_ in entries}
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (
        learning == json.loads((folder / "summary.json").read_text())[name]["trainable_parameters"]
    )
