"""The decoder and its parts: where windows are, who sees whom, sums of overlapping frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidseg.projects.rqvae.decoder import MultiWindowDecoder, OverlapAdd
from vidseg.projects.rqvae.encoder import (
    POSITION_SCALE,
    DocumentEncoder,
    PositionalQueries,
    sinusoidal_positions,
)
from vidseg.projects.rqvae.window_projection import WindowProjection
from vidseg.projects.rqvae.windows import MODES, first_start, num_windows, window_centres


def decoder(**settings: object) -> MultiWindowDecoder:
    torch.manual_seed(0)
    return MultiWindowDecoder(16, 4, 4, **settings).eval()  # type: ignore[arg-type]


def inputs(num_frames: int = 40, num: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, num_frames, 16), torch.randn(2, num, 16), window_centres(num, 10, 4)


@pytest.mark.parametrize("reach", [0.0, 14.0])
def test_order_of_the_windows_does_not_matter_their_places_do(reach: float) -> None:
    model = decoder(memory_reach=reach)
    queries, memory, centres = inputs()
    mask = torch.rand(2, 10) < 0.8
    order = torch.randperm(10)
    want = model(queries, memory, centres, window_mask=mask)
    moved = model(queries, memory[:, order], centres[order], window_mask=mask[:, order])
    torch.testing.assert_close(moved, want)
    misplaced = model(queries, memory[:, order], centres, window_mask=mask[:, order])
    assert (misplaced - want).abs().max() > 1e-2


def test_windows_without_places_share_the_frames_evenly() -> None:
    decoder = MultiWindowDecoder(16, num_layers=2, nhead=2)
    queries, memory = torch.randn(2, 12, 16), torch.randn(2, 3, 16)
    want = decoder(queries, memory, torch.tensor([1.5, 5.5, 9.5]))
    torch.testing.assert_close(decoder(queries, memory), want)
    late = decoder(queries, memory, torch.tensor([101.5, 105.5, 109.5]), first_frame=100)
    torch.testing.assert_close(decoder(queries, memory, first_frame=100), late)


def test_without_positions_nobody_knows_where_a_window_is() -> None:
    model = decoder(memory_positions=False)
    queries, memory, centres = inputs()
    order = torch.randperm(10)
    want = model(queries, memory, centres)
    torch.testing.assert_close(model(queries, memory[:, order], centres), want)


def test_masked_windows_and_frames_are_not_seen() -> None:
    model = decoder()
    queries, memory, centres = inputs()
    window_mask = torch.ones(2, 10, dtype=torch.bool)
    window_mask[1, 6:] = False
    frame_mask = torch.ones(2, 40, dtype=torch.bool)
    frame_mask[1, 25:] = False
    masks = {"window_mask": window_mask, "frame_mask": frame_mask}
    want = model(queries, memory, centres, **masks)[frame_mask]
    changed_queries, changed_memory = queries.clone(), memory.clone()
    changed_queries[~frame_mask] += 1
    changed_memory[~window_mask] += 1
    found = model(changed_queries, changed_memory, centres, **masks)[frame_mask]
    assert torch.equal(found, want)


def test_no_window_at_all_is_no_number_missing() -> None:
    model = decoder(memory_reach=3.0)
    queries, memory, centres = inputs()
    memory.requires_grad_()
    mask = torch.zeros(2, 10, dtype=torch.bool)
    out = model(queries, memory, centres + 1000, window_mask=mask)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert memory.grad is not None
    assert (memory.grad == 0).all()


def test_local_memory_is_local() -> None:
    model = decoder(memory_reach=14.0, context=1)
    queries, memory, centres = inputs()
    changed = memory.clone()
    changed[:, 5] += 1  # its middle is at frame 21.5
    moved = (model(queries, memory, centres) != model(queries, changed, centres)).any(-1)[0]
    seen = moved.nonzero()[:, 0].tolist()
    # Two blocks: frames 8 to 35 see the window; in the second, their neighbours see them.
    assert seen == list(range(7, 37))


def test_the_clock_may_start_anywhere() -> None:
    model = decoder(memory_reach=14.0)
    queries, memory, centres = inputs()
    late = model(queries, memory, centres + 30, first_frame=30)
    assert late.shape == queries.shape
    assert not torch.equal(late, model(queries, memory, centres + 30))


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_odd_numbers_of_layers_are_refused(num_layers: int) -> None:
    with pytest.raises(ValueError, match=f"{num_layers} layers.*even"):
        MultiWindowDecoder(16, num_layers)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("window", "stride"), [(10, 4), (10, 5), (9, 9), (3, 7), (1, 1)])
def test_overlap_add_equals_the_loop(mode: str, window: int, stride: int) -> None:
    num_frames = 43
    num = num_windows(num_frames, window, stride, mode, allow_gaps=True)
    layer = OverlapAdd(5, 8, window=window, stride=stride, mode=mode, frame_dim=6)
    codes, mask = torch.randn(2, num, 5), torch.rand(2, num) < 0.8
    found = layer(codes, mask, first_window=0, start=0, stop=num_frames)
    patches = layer.frames(codes).view(2, num, window, 6)
    sums, tapers = torch.zeros(2, num_frames, 6), torch.zeros(2, num_frames, 1)
    for n in range(num):
        for place in range(window):
            frame = first_start(window, stride, mode) + n * stride + place
            if 0 <= frame < num_frames:
                taper = torch.sin(torch.tensor(torch.pi * (place + 0.5) / window)).square()
                weight = taper * mask[:, n, None]
                sums[:, frame] += weight * patches[:, n, place]
                tapers[:, frame] += weight
    want = layer.output(sums / tapers.clamp_min(1e-12))
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)
    first = min(3, num - 1)
    part = layer(codes[:, first:], mask[:, first:], first_window=first, start=35, stop=num_frames)
    if mode != "drop" and window > 1 and 35 - first_start(window, stride, mode) >= window:
        torch.testing.assert_close(part, want[:, 35:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("window", "stride"), [(10, 4), (10, 5), (9, 9), (3, 7)])
def test_projection_equals_a_linear_layer_of_every_window(
    mode: str, window: int, stride: int
) -> None:
    num_frames = 43
    num = num_windows(num_frames, window, stride, mode, allow_gaps=True)
    layer = WindowProjection(6, 5, window=window, stride=stride, mode=mode)
    frames = torch.randn(2, num_frames, 6, requires_grad=True)
    found = layer(frames, num)
    before = -first_start(window, stride, mode)
    wide = torch.nn.functional.pad(frames, (0, 0, max(before, 0), num * stride + window))
    wide = wide[:, max(-before, 0) :]
    windows = torch.stack([wide[:, n * stride : n * stride + window] for n in range(num)], 1)
    want = torch.nn.functional.linear(windows.flatten(2), layer.linear.weight, layer.linear.bias)
    torch.testing.assert_close(found, want)
    gradients = [
        torch.autograd.grad(y.square().sum(), (frames, *layer.parameters())) for y in (found, want)
    ]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_positions_are_exact_late_in_a_document() -> None:
    times = torch.tensor([0.0, 0.5, 3.0, 99_999.0])
    code = sinusoidal_positions(times, 8)
    assert code[0].tolist() == [0.0] * 4 + [1.0] * 4
    speed = 10000.0 ** (-torch.arange(4).double() / 4)
    angles = times.double()[:, None] * speed
    want = torch.cat([angles.sin(), angles.cos()], 1).float()
    torch.testing.assert_close(code, want, atol=1e-6, rtol=0)


def test_queries_of_long_documents_stretch_the_table() -> None:
    queries = PositionalQueries(10, 4)
    with torch.no_grad():
        queries.table.copy_(torch.arange(10.0)[:, None].expand(10, 4))
    times = torch.arange(40)
    learned = queries(times, 40) - POSITION_SCALE * sinusoidal_positions(times, 4)
    want = torch.nn.functional.interpolate(
        queries.table.t()[None], 40, mode="linear", align_corners=False
    )[0].t()
    torch.testing.assert_close(learned, want, atol=1e-4, rtol=0)
    short = queries(times[2:7], 9) - POSITION_SCALE * sinusoidal_positions(times[2:7], 4)
    torch.testing.assert_close(short, queries.table[2:7], atol=1e-5, rtol=0)


def test_encoder_sees_as_far_as_its_reach() -> None:
    encoder = DocumentEncoder(16, 2, 4, context=3).eval()
    x = torch.randn(1, 60, 16)
    other = x.clone()
    other[:, 30] += 1
    changed = (encoder(x) != encoder(other)).any(-1)[0].nonzero()[:, 0]
    assert encoder.reach == 6
    assert changed.tolist() == list(range(24, 37))
    assert DocumentEncoder(16, 2, 4).reach is None
    assert DocumentEncoder(16, 0, 4).reach == 0
