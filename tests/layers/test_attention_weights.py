"""Recorded attention weights against torch's own, and that recording changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidseg.layers import CrossAttentionLayer
from vidseg.layers.attention_weights import attention_weights, recorded_attention


@pytest.mark.parametrize("mask", ["none", "shared", "batch", "padding", "both"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_equals_torch(mask: str, pre_norm: bool) -> None:
    layer = CrossAttentionLayer(16, 4, pre_norm=pre_norm).eval()
    nn.init.normal_(layer.multihead_attn.in_proj_bias)
    queries, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    query_pos, memory_pos = torch.randn(5, 16), torch.randn(7, 16)
    shapes = {"shared": (5, 7), "batch": (3, 5, 7), "both": (3, 5, 7)}
    blocked = torch.rand(shapes[mask]) < 0.4 if mask in shapes else None
    if blocked is not None:
        blocked[..., 0] = False
    padding = None
    if mask in ("padding", "both"):
        padding = torch.zeros(3, 7, dtype=torch.bool)
        padding[1, 5:] = True
    masks = {"attn_mask": blocked, "key_padding_mask": padding}
    positions = {"query_pos": query_pos, "memory_pos": memory_pos}
    found = attention_weights(layer, queries, memory, **positions, **masks)
    if blocked is not None and blocked.dim() == 3:
        masks["attn_mask"] = blocked.repeat_interleave(4, dim=0)
    x = layer.norm(queries) if pre_norm else queries
    _, want = layer.multihead_attn(x + query_pos, memory + memory_pos, memory, **masks)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 5))


def test_a_query_that_may_read_nothing_has_no_weights() -> None:
    layer = CrossAttentionLayer(8, 2)
    blocked = torch.zeros(2, 3, dtype=torch.bool)
    blocked[1] = True
    weights = attention_weights(
        layer, torch.randn(1, 2, 8), torch.randn(1, 3, 8), attn_mask=blocked
    )
    assert weights[0, 1].tolist() == [0, 0, 0]
    assert weights[0, 0].sum().item() == pytest.approx(1)


def test_recording_hears_every_call_and_ends() -> None:
    layer = CrossAttentionLayer(8, 2).eval()
    queries, memory, pos = torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.randn(4, 8)
    plain = layer(queries, memory, memory_pos=pos)
    heard: list[torch.Tensor] = []
    with recorded_attention(layer, heard.append):
        assert torch.equal(layer(queries, memory, memory_pos=pos), plain)
        layer(queries[:1], memory[:1])
    layer(queries, memory)
    assert [tuple(weights.shape) for weights in heard] == [(2, 3, 4), (1, 3, 4)]
    assert not heard[0].requires_grad
    want = attention_weights(layer, queries, memory, memory_pos=pos)
    torch.testing.assert_close(heard[0], want)


def test_recording_ends_with_an_error() -> None:
    layer = CrossAttentionLayer(8, 2)
    heard: list[torch.Tensor] = []
    with pytest.raises(KeyError), recorded_attention(layer, heard.append):
        raise KeyError
    layer(torch.randn(1, 2, 8), torch.randn(1, 3, 8))
    assert not heard
