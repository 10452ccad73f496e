"""Attention blocks against torch's own module, masks, empty sets, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidseg.layers import CrossAttentionLayer, FFNLayer, SelfAttentionLayer, attend
from vidseg.layers.attention import attend_nearby


def module(width: int = 16, heads: int = 4) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(width, heads, batch_first=True).eval()


@pytest.mark.parametrize("mask", ["none", "shared", "batch", "heads", "padding", "both"])
def test_equals_torch(mask: str) -> None:
    attention = module()
    q, kv = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    shapes = {"shared": (5, 7), "batch": (3, 5, 7), "both": (3, 5, 7), "heads": (12, 5, 7)}
    blocked = torch.rand(shapes[mask]) < 0.4 if mask in shapes else None
    if blocked is not None:
        blocked[..., 0] = False
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = True
    padding = padding if mask in ("padding", "both") else None
    per_head = blocked
    if blocked is not None and mask in ("batch", "both"):
        per_head = blocked.repeat_interleave(4, dim=0)
    want, _ = attention(q, kv, kv, attn_mask=per_head, key_padding_mask=padding)
    found = attend(attention, q, kv, kv, attn_mask=blocked, key_padding_mask=padding)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_cross_attention_block(pre_norm: bool) -> None:
    layer = CrossAttentionLayer(16, 4, pre_norm=pre_norm).eval()
    q, memory = torch.randn(2, 3, 16), torch.randn(2, 6, 16)
    q_pos, k_pos = torch.randn(3, 16), torch.randn(6, 16)
    inner = layer.norm(q) if pre_norm else q
    update, _ = layer.multihead_attn(inner + q_pos, memory + k_pos, memory)
    want = q + update if pre_norm else layer.norm(q + update)
    torch.testing.assert_close(layer(q, memory, query_pos=q_pos, memory_pos=k_pos), want)


def test_self_attention_is_equivariant_to_order() -> None:
    layer = SelfAttentionLayer(16, 4).eval()
    x, pos, order = torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.randperm(5)
    permuted = layer(x[:, order], query_pos=pos[:, order])
    torch.testing.assert_close(permuted, layer(x, query_pos=pos)[:, order])


@pytest.mark.parametrize(("num", "batch"), [(0, 2), (3, 0)])
def test_nothing_to_do(num: int, batch: int) -> None:
    x = torch.randn(batch, num, 16, requires_grad=True)
    out = CrossAttentionLayer(16, 4)(x, torch.randn(batch, 6, 16))
    out = FFNLayer(16, 8)(SelfAttentionLayer(16, 4)(out))
    assert out.shape == (batch, num, 16)
    out.sum().backward()


def test_dropout_only_in_training() -> None:
    layer = SelfAttentionLayer(16, 4, dropout=0.5)
    x = torch.randn(1, 5, 16)
    assert not torch.allclose(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x))


def test_gradients_reach_every_parameter() -> None:
    layers = nn.ModuleList([SelfAttentionLayer(16, 4), FFNLayer(16, 8, pre_norm=True)])
    x = torch.randn(2, 5, 16)
    for layer in layers:
        x = layer(x)
    x.square().sum().backward()
    assert [n for n, p in layers.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("length", "radius"), [(1, 3), (33, 40), (70, 5), (200, 32), (64, 32)])
def test_neighbours_only_equals_a_band(length: int, radius: int) -> None:
    attention = module()
    x = torch.randn(3, length, 16, requires_grad=True)
    padding = torch.zeros(3, length, dtype=torch.bool)
    padding[1, length // 2 :] = True
    padding[2] = True
    place = torch.arange(length)
    far = (place[:, None] - place).abs() > radius
    want = attend(attention, x, x, x, attn_mask=far, key_padding_mask=padding)
    found = attend_nearby(attention, x, x, radius=radius, key_padding_mask=padding)
    torch.testing.assert_close(found, want)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (want, found)]
    torch.testing.assert_close(*gradients)


def test_self_attention_block_with_a_radius() -> None:
    layer = SelfAttentionLayer(16, 4, pre_norm=True, radius=2).eval()
    x, position = torch.randn(1, 50, 16), torch.randn(50, 16)
    other = x.clone()
    other[:, 30] += 1
    changed = (layer(x, query_pos=position) != layer(other, query_pos=position)).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [28, 29, 30, 31, 32]


def test_a_feed_forward_block_takes_many_rows_in_parts() -> None:
    layer = FFNLayer(64, 512).eval()
    x = torch.randn(2, 600, 64)
    sizes: list[int] = []
    hook = layer.linear1.register_forward_hook(lambda *args: sizes.append(args[-1].numel() // 512))
    with torch.no_grad():
        found = layer(x)
    assert sum(sizes) == 1200
    assert max(sizes) <= 128
    hook.remove()
    torch.testing.assert_close(found, layer(x))  # with gradients, in one go
    with torch.no_grad():
        pixels = layer(x.expand(8, 2, 600, 64))
    torch.testing.assert_close(pixels[5], found)
