"""From frames to kept masks: the tracking step's economy and what a result is made of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vidseg import rle
from vidseg.modeling.meta_arch import ResultSettings
from vidseg.modeling.transformer_decoder import DecoderOutput
from vidseg.projects.dvis_daq.inference import track_window
from vidseg.projects.dvis_daq.memory import TrackMemory, TrackRules
from vidseg.projects.dvis_daq.results import FrameGeometry, MaskHistory, MaskQuality, Selection
from vidseg.projects.dvis_daq.sequences import clip_instances, linked_sequences
from vidseg.projects.dvis_daq.settings import RefinerInput
from vidseg.projects.dvis_daq.tracker import VideoInstanceCutter


@pytest.fixture
def tracker() -> VideoInstanceCutter:
    return VideoInstanceCutter(
        hidden_dim=16,
        feedforward_dim=16,
        num_heads=2,
        num_layers=1,
        num_classes=3,
        num_new_instances=5,
        num_slots=2,
    ).eval()


def clip_of(num_frames: int) -> DecoderOutput:
    embeds = torch.randn(num_frames, 5, 16)
    return DecoderOutput(
        logits=torch.randn(num_frames, 5, 4),
        masks=torch.randn(num_frames, 5, 6, 7),
        embeds=embeds,
        embeds_without_norm=embeds,
        mask_features=torch.randn(num_frames, 16, 6, 7),
    )


@torch.no_grad()
@pytest.mark.parametrize(("slot_rule", "calls"), [("unused", 0), ("gate", 2), ("mean", 2)])
def test_slots_run_only_where_somebody_reads_them(slot_rule, calls, tracker, monkeypatch) -> None:
    counted = SimpleNamespace(slots=0, rows=[])
    slots, segment = tracker.slots, tracker.segment

    def count_slots(*args, **options):
        counted.slots += 1
        return slots(*args, **options)

    def count_rows(queries, projected):
        counted.rows.append(len(queries))
        return segment(queries, projected)

    monkeypatch.setattr(tracker, "slots", count_slots)
    monkeypatch.setattr(tracker, "segment", count_rows)
    rules = TrackRules(0.0, 0.0, 0.0, slot_rule, max_births=2)
    memory = TrackMemory.empty(16, 4)
    steps = track_window(tracker, clip_of(3), memory, rules, torch.randn(5, 16))
    kept = [len(frame.ids) for _, frame in steps]
    assert counted.slots == calls
    assert kept == [2, 4, 6]
    assert counted.rows == kept  # no masks of rows that nobody keeps


@torch.no_grad()
def test_half_precision_goes_through(tracker) -> None:
    rules = TrackRules(0.0, 0.0, 0.0, "gate")
    memory = TrackMemory.empty(16, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for after, tracked in track_window(tracker, clip_of(3), memory, rules, torch.randn(5, 16)):
            memory = after
            assert tracked.masks.isfinite().all()
    assert memory.embeds.dtype == torch.float32
    assert memory.logits_sum.isfinite().all()


@torch.no_grad()
def test_broken_frame_gives_no_tracks_and_no_crash(tracker) -> None:
    clip = clip_of(3)
    clip.embeds[1] = float("nan")
    clip.logits[:] = float("nan")
    rules = TrackRules(0.1, 0.1, 0.1, "gate")
    steps = track_window(tracker, clip, TrackMemory.empty(16, 4), rules, torch.randn(5, 16))
    kept = [len(frame.ids) for _, frame in steps]
    assert kept[:2] == [0, 0]


def test_linked_queries_undo_a_permutation_per_frame() -> None:
    base = torch.randn(5, 16)
    orders = [torch.randperm(5) for _ in range(4)]
    embeds = torch.stack([base[order] for order in orders])
    logits = torch.stack([torch.eye(5)[order] for order in orders])
    masks = torch.stack([torch.arange(5.0)[order] for order in orders])[..., None, None]
    linked = linked_sequences(embeds, logits, first_id=7, masks=masks)
    assert linked.ids.tolist() == [7, 8, 9, 10, 11]
    torch.testing.assert_close(linked.embeds, base[orders[0]][:, None].expand(-1, 4, -1))
    torch.testing.assert_close(linked.logits, torch.eye(5)[orders[0]])
    assert (linked.masks[:, :, 0, 0] == orders[0][:, None]).all()
    assert not linked.padding.any()


@pytest.mark.parametrize(("fill", "size"), [(True, 5), (False, 2)])
def test_a_training_clip_is_filled_up_on_request(fill, size, tracker) -> None:
    rules = TrackRules(0.0, 0.0, max_births=1)
    wanted = RefinerInput(max_tracks=2, num_instances=5, fill=fill)
    instances = clip_instances(tracker, clip_of(4), rules, torch.randn(5, 16), wanted)
    assert len(instances) == size
    assert instances.embeds.shape == (size, 4, 16)
    assert instances.masks.shape == (size, 4, 6, 7)
    assert len(instances.ids.unique()) == size
    assert not instances.embeds.requires_grad


def test_quality_is_the_mean_probability_inside_the_mask() -> None:
    quality = MaskQuality()
    logits = torch.tensor([[[2.0, -1.0]], [[-1.0, -1.0]]])
    quality.add([4, 9], logits)
    quality.add([4], torch.tensor([[[1.0, 3.0]]]))
    expected = torch.tensor([2.0, 1.0, 3.0]).sigmoid().mean()
    torch.testing.assert_close(quality.of([9, 4, 5]), torch.tensor([0.0, expected, 0.0]))
    quality.keep_only({9, 77})
    assert quality.of([4]).tolist() == [0.0]


def test_rated_selection_is_sorted_again() -> None:
    logits = torch.tensor([[3.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    settings = ResultSettings(max_num=5, one_label_per_track=True)
    selection = Selection.best(logits, settings)
    assert selection.rows.tolist() == [0, 1]
    rated = selection.rated(torch.tensor([0.1, 0.9]))
    assert rated.rows.tolist() == [1, 0]
    assert Selection.best(logits[:0], settings).scores.tolist() == []


def test_history_keeps_what_is_present_of_whom_is_wanted() -> None:
    geometry = FrameGeometry((8, 8), (6, 8), (6, 8))
    logits = torch.full((2, 1, 2, 2), -5.0)
    logits[0, 0, 0] = 5.0
    masks = [runs[0] for runs in geometry.encode(logits)]
    assert masks[1] is None
    assert rle.decode(masks[0]).shape == (6, 8)
    history = MaskHistory()
    history.add([3, 8], 0, masks)
    history.add([3], 2, masks[:1])
    assert [mask is not None for mask in history.masks(3, range(3))] == [True, False, True]
    assert history.masks(8, range(2)) == [None, None]
    history.keep_only({3})
    assert 8 not in history._frames
    assert history.masks(99, range(1)) == [None]
