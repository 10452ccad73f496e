from __future__ import annotations

import pytest
import torch

from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.patches import SCALED_SIDE, extract_patches


def detections(rows: list[tuple[int, float, float, float]], size: tuple[int, int]) -> Detections:
    """Detections from rows of frame, y, x and sigma."""
    columns = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    rest = torch.ones(len(rows))
    return Detections(
        columns[:, 0].long(),
        *columns[:, 1:].unbind(1),
        *[rest] * 4,
        torch.ones(len(rows), 3),
        num_frames=3,
        size=size,
    )


@pytest.fixture
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (3, 3, 20, 30), dtype=torch.uint8, generator=generator)


def test_patch_is_what_surrounds_the_centre(frames) -> None:
    found = detections([(0, 10, 12, 2), (2, 9, 20, 2), (1, 10.4, 11.6, 2)], (20, 30))
    patches = extract_patches(frames, found, side=5)
    assert patches.dtype == torch.uint8
    assert torch.equal(patches[0], frames[0, :, 8:13, 10:15])
    assert torch.equal(patches[1], frames[2, :, 7:12, 18:23])
    assert torch.equal(patches[2], frames[1, :, 8:13, 10:15])
    even = extract_patches(frames, found, side=4)
    assert torch.equal(even[0], frames[0, :, 9:13, 11:15])


def test_outside_of_the_frame_is_black(frames) -> None:
    found = detections([(0, 0, 0, 2), (1, 19, 29, 2)], (20, 30))
    first, last = extract_patches(frames, found, side=7)
    assert first[:, :3].sum() == first[:, :, :3].sum() == 0
    assert torch.equal(first[:, 3:, 3:], frames[0, :, :4, :4])
    assert last[:, 4:].sum() == last[:, :, 4:].sum() == 0
    assert torch.equal(last[:, :4, :4], frames[1, :, 16:, 26:])


def test_patch_larger_than_the_frame(frames) -> None:
    (patch,) = extract_patches(frames, detections([(1, 10, 15, 2)], (20, 30)), side=64)
    assert torch.equal(patch[:, 21:41, 16:46], frames[1])
    assert patch.sum() == frames[1].sum()


def test_scaled_patches_show_blobs_at_one_size() -> None:
    size = (160, 160)
    rows, columns = torch.meshgrid(torch.arange(160.0), torch.arange(160.0), indexing="ij")
    radii = [4.0, 12.0, 40.0]
    discs = [((rows - 80) ** 2 + (columns - 70) ** 2 <= radius**2) * 255 for radius in radii]
    frames = torch.stack(discs)[:, None].expand(3, 3, *size).to(torch.uint8)
    found = detections([(i, 80, 70, radius / 2**0.5) for i, radius in enumerate(radii)], size)
    patches = extract_patches(frames, found, side=14, scaled=True).float() / 255
    assert patches.shape == (3, 3, SCALED_SIDE, SCALED_SIDE)
    share = torch.pi / 2.5**2  # of the square that the disc fills
    assert patches.mean((1, 2, 3)) == pytest.approx(torch.full((3,), share), abs=0.03)
    assert (patches[0] - patches[2]).abs().mean() < 0.08
    assert patches[:, :, 8, 8].min() == 1
    assert patches[:, :, 0, 0].max() == 0


def test_scaled_patches_are_interpolated() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(1, 3, 40, 100)
    radius = SCALED_SIDE / 2.5  # one pixel of the patch for one of the frame
    found = detections([(0, 20.25, 50.25, radius / 2**0.5)], (40, 100))
    (patch,) = extract_patches(ramp, found, side=14, scaled=True)
    exact = 50.25 + torch.arange(SCALED_SIDE) - (SCALED_SIDE - 1) / 2
    assert (patch[0, 0].float() - exact).abs().max() <= 0.5


@pytest.mark.parametrize("scaled", [False, True])
def test_nothing_found(frames, scaled: bool) -> None:
    side = SCALED_SIDE if scaled else 14
    patches = extract_patches(frames, detections([], (20, 30)), side=14, scaled=scaled)
    assert patches.shape == (0, 3, side, side)
