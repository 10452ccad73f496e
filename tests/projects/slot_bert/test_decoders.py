"""What slots draw, by both decoders."""

from __future__ import annotations

import pytest
import torch

from vidseg.projects.slot_bert.decoders import BroadcastDecoder, PixelMLPDecoder, build_decoder

M, K, WIDTH = 3, 4, 8


@pytest.mark.parametrize(("name", "size"), [("broadcast", 8), ("broadcast", 32), ("mlp", 12)])
def test_shapes_and_gradients(name: str, size: int) -> None:
    decoder = build_decoder(name, WIDTH, size=size, channels=6, out_channels=5)
    slots = torch.randn(M, K, WIDTH, requires_grad=True)
    drawn, logits = decoder(slots)
    assert drawn.shape == (M, K, 5, size, size)
    assert logits.shape == (M, K, size, size)
    (drawn.square().mean() + logits.square().mean()).backward()
    for parameter in (slots, *decoder.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["broadcast", "mlp"])
def test_slots_are_drawn_by_themselves(name: str) -> None:
    decoder = build_decoder(name, WIDTH, size=16, channels=6)
    slots = torch.randn(M, K, WIDTH)
    order = torch.tensor([2, 0, 3, 1])
    drawn, logits = decoder(slots)
    mixed, mixed_logits = decoder(slots[:, order])
    torch.testing.assert_close(mixed, drawn[:, order])
    torch.testing.assert_close(mixed_logits, logits[:, order])
    alone, _ = decoder(slots[1:2, 3:])
    torch.testing.assert_close(alone[0, 0], drawn[1, 3])


def test_every_transposed_convolution_doubles_the_grid() -> None:
    assert [len(BroadcastDecoder(4, size=size).layers) for size in (8, 16, 128)] == [0, 1, 4]
    for size in (4, 12, 100):
        with pytest.raises(ValueError, match="8 times a power of two"):
            BroadcastDecoder(4, size=size)
    with pytest.raises(ValueError, match="none of broadcast, mlp"):
        build_decoder("cnn", 4, size=8, channels=4)


def test_chosen_pixels_are_those_of_the_whole() -> None:
    decoder = PixelMLPDecoder(WIDTH, size=10, hidden_dim=6)
    slots = torch.randn(M, K, WIDTH)
    drawn, logits = decoder(slots)
    index = decoder.sample_pixels(0.25)
    assert index is not None
    assert index.tolist() == sorted(set(index.tolist()))
    assert len(index) == 25
    some, some_logits = decoder.decode_pixels(slots, index)
    torch.testing.assert_close(some, drawn.flatten(-2)[..., index])
    torch.testing.assert_close(some_logits, logits.flatten(-2)[..., index])
    assert decoder.sample_pixels(1.0) is None
    draws = torch.stack([decoder.sample_pixels(0.25) for _ in range(400)])
    counts = draws.flatten().bincount(minlength=100)
    assert counts.min() > 60  # of 100 expected: every pixel has its turn
    assert counts.max() < 140


def test_a_part_of_the_pixels_gives_the_gradient_of_all_on_average() -> None:
    decoder = PixelMLPDecoder(WIDTH, size=4, hidden_dim=6)
    slots = torch.randn(M, K, WIDTH)

    def gradient(index: torch.Tensor | None) -> torch.Tensor:
        drawn, _ = decoder.decode_pixels(slots, index)
        return torch.autograd.grad(drawn.square().mean(), decoder.head.weight)[0]

    parts = [gradient(index) for index in torch.randperm(16).view(4, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(0), gradient(None))


def test_the_pixel_mlp_is_an_mlp_of_slot_and_position() -> None:
    decoder = PixelMLPDecoder(WIDTH, size=4, hidden_dim=6)
    slots = torch.randn(1, K, WIDTH)
    drawn, logits = decoder(slots)
    codes = decoder.position(4, 4)
    for k in range(K):
        for pixel in range(16):
            x = (decoder.slot_layer(slots[0, k]) + codes[pixel]).relu()
            expected = decoder.head(decoder.hidden_layer(x).relu())
            torch.testing.assert_close(drawn[0, k].flatten(1)[:, pixel], expected[:3])
            torch.testing.assert_close(logits[0, k].flatten()[pixel], expected[3])
