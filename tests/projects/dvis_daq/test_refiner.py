"""The temporal refiner against the published code, and what its options promise."""

from __future__ import annotations

import pytest
import torch

from tests.golden_utils import GoldenCase, load_case
from vidseg.modeling.meta_arch import FrameStore, KeepingSpace, SequenceBuffer
from vidseg.projects.dvis_daq import long_refining
from vidseg.projects.dvis_daq.refiner import TemporalRefiner


def build(*, local: bool, padding: bool = False) -> TemporalRefiner:
    return TemporalRefiner(
        hidden_dim=32,
        feedforward_dim=48,
        num_heads=4,
        num_layers=3,
        mask_dim=32,
        num_classes=6,
        use_local_attention=local,
        use_padding_mask=padding,
    ).eval()


def inputs_of(case: GoldenCase) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    instances = case.inputs["instance_embeds"].permute(0, 3, 2, 1)  # (B, N, T, C)
    frame_embeds = case.inputs["frame_embeds"].permute(0, 2, 3, 1)  # (B, T, Q, C)
    return instances, frame_embeds, case.inputs["padding_masks"], case.inputs["mask_features"]


@torch.no_grad()
@pytest.mark.parametrize(("name", "local"), [("refiner", False), ("refiner_local_attn", True)])
def test_refiner_equals_the_published_one(name, local) -> None:
    case = load_case(f"dvis_daq/{name}")
    refiner = build(local=local)
    assert {k: tuple(v.shape) for k, v in refiner.state_dict().items()} == case.names_shapes
    refiner.load_state_dict(case.state_dict())
    instances, frame_embeds, padding, mask_features = inputs_of(case)
    outputs = refiner(instances, frame_embeds, padding)
    golden = case.outputs
    for layer, queries in enumerate(outputs):
        expected = golden[f"L{layer}_ffn_q_bt_c"].transpose(0, 1)  # (N, T, C)
        torch.testing.assert_close(queries[0], expected.transpose(0, 1), atol=1e-4, rtol=1e-4)
        last = layer == len(outputs) - 1
        prefix = "" if last else f"train_aux{layer}_"
        logits = refiner.classify(queries, padding)[:, None].expand(-1, 7, -1, -1)
        torch.testing.assert_close(logits, golden[f"{prefix}pred_logits"], atol=1e-4, rtol=1e-4)
        masks = refiner.segment(queries, mask_features)
        torch.testing.assert_close(masks, golden[f"{prefix}pred_masks"], atol=1e-4, rtol=1e-4)
    expected = golden["pred_embds"].permute(0, 3, 2, 1)
    torch.testing.assert_close(outputs[-1], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_is_read_only_on_request() -> None:
    case = load_case("dvis_daq/refiner_local_attn")
    instances, frame_embeds, padding, _ = inputs_of(case)
    deaf, attentive = build(local=False), build(local=False, padding=True)
    attentive.load_state_dict(deaf.state_dict())
    torch.testing.assert_close(
        deaf(instances, frame_embeds, padding)[-1], deaf(instances, frame_embeds, ~padding)[-1]
    )
    queries = attentive(instances, frame_embeds, padding)[-1]
    weights = attentive.frame_weights(queries, padding)
    assert (weights[padding] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    never = torch.ones_like(padding)
    assert attentive(instances, frame_embeds, never)[-1].isfinite().all()
    assert attentive.classify(queries, never).isfinite().all()


@torch.no_grad()
def test_padded_frames_do_not_reach_the_others() -> None:
    """With padding honoured, what stands in the frames outside a life changes nothing inside."""
    refiner = build(local=False, padding=True)
    instances, frames = torch.randn(1, 1, 6, 32), torch.randn(1, 6, 4, 32)
    padding = torch.tensor([[[True, False, False, False, True, True]]])
    other = torch.where(padding[..., None], torch.randn_like(instances), instances)
    one = refiner(instances, frames, padding)[-1]
    two = refiner(other, frames, padding)[-1]
    torch.testing.assert_close(one[~padding], two[~padding])
    torch.testing.assert_close(refiner.classify(one, padding), refiner.classify(two, padding))


@torch.no_grad()
def test_instances_are_a_set_and_videos_are_apart() -> None:
    refiner = build(local=True)
    instances, frames = torch.randn(2, 5, 4, 32), torch.randn(2, 4, 6, 32)
    together = refiner(instances, frames)[-1]
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = refiner(instances[:, order], frames)[-1]
    torch.testing.assert_close(shuffled, together[:, order], atol=1e-5, rtol=1e-4)
    alone = refiner(instances[1:], frames[1:])[-1]
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("num_instances", "num_frames"), [(0, 3), (1, 1), (3, 2)])
def test_any_size_goes_through_and_learns(num_instances, num_frames) -> None:
    refiner = build(local=True)
    instances = torch.randn(1, num_instances, num_frames, 32)
    outputs = refiner(instances, torch.randn(1, num_frames, 4, 32))
    logits = refiner.classify(outputs[-1])
    masks = refiner.segment(outputs[-1], torch.randn(1, num_frames, 32, 5, 6))
    assert logits.shape == (1, num_instances, 7)
    assert masks.shape == (1, num_instances, num_frames, 5, 6)
    (logits.square().sum() + masks.square().sum()).backward()
    assert [name for name, p in refiner.named_parameters() if p.grad is None] == []


@torch.no_grad()
@pytest.mark.parametrize("memory_mb", [0, 64])
@pytest.mark.parametrize(("local", "honour_padding"), [(False, False), (True, True)])
@pytest.mark.parametrize("workspace", [1, 60_000, 2**25])
def test_parts_give_what_the_whole_gives(
    memory_mb: float, local: bool, honour_padding: bool, workspace: int, monkeypatch
) -> None:
    monkeypatch.setattr(long_refining, "WORKSPACE", workspace)
    refiner = build(local=local, padding=honour_padding)
    instances, frames = torch.randn(7, 9, 32), torch.randn(9, 6, 32)
    padding = torch.rand(7, 9) < 0.4
    space = KeepingSpace(memory_mb, "KEY")
    queries = SequenceBuffer((7, 9, 32), dtype=torch.float32, device=frames.device, space=space)
    queries.write_instances(0, instances)
    embeds = FrameStore(space)
    for frame in frames:
        embeds.append(frame)
    long_refining.refine_in_place(refiner, queries, embeds, padding)
    expected = refiner(instances[None], frames[None], padding[None])[-1]
    torch.testing.assert_close(queries.instances(0, 7), expected[0], atol=1e-5, rtol=1e-4)
    logits = long_refining.classify_in_parts(refiner, queries, padding)
    expected = refiner.classify(expected, padding[None])[0]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
