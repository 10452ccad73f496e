"""What the pixels around a blob say, against one blob at a time with scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.measure import label, perimeter_crofton

from tests.projects.persistence.support_detector import SETTINGS, draw_disc, random_frames
from vidseg.projects.persistence import confidence
from vidseg.projects.persistence.confidence import crofton_perimeter, measure_blobs, size_factor
from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.detector import BlobDetector

EXPECTED_RADIUS = 4.0


def detect(image: np.ndarray, **changed: object) -> Detections:
    settings = {**SETTINGS, "max_per_frame": 64, "expected_radius": EXPECTED_RADIUS, **changed}
    return BlobDetector(**settings)(image)  # type: ignore[arg-type]


def score_at(found: Detections, y: float, x: float) -> float:
    """Gives the confidence of the blob nearest to a place, which must be within 3 pixels."""
    distance = torch.hypot(found.y - y, found.x - x)
    assert distance.min() <= 3
    return float(found.confidence[distance.argmin()])


def measure_one(
    frame: np.ndarray, grey: np.ndarray, y: float, x: float, sigma: float
) -> tuple[float, float, np.ndarray]:
    """Follows the definitions word by word."""
    rows, columns = np.ogrid[: grey.shape[0], : grey.shape[1]]
    radius = np.sqrt(2) * sigma
    distance = np.hypot(rows - y, columns - x)
    disc, ring = distance <= radius, (distance >= 1.3 * radius) & (distance <= 2 * radius)
    inside = grey[disc].mean()
    outside = grey[ring].mean() if ring.any() else np.median(grey)
    low, high = np.percentile(grey, [1, 99])
    brightness = np.clip((inside - outside) / max(1e-6, high - low), 0, 1)
    labels = label((grey > (inside + outside) / 2) & (distance <= 2 * radius))
    number = labels[int(y), int(x)]
    region = (labels == number) & (number > 0)
    area = region.sum()
    circularity = 1.0
    if area >= 4:
        circularity = min(4 * np.pi * area / perimeter_crofton(region, 4) ** 2, 1)
    return brightness, circularity, frame[:, disc].mean(1)


@pytest.mark.parametrize(
    "changed", [{}, {"min_sigma": 0.6, "max_sigma": 14.0, "threshold": 0.05}], ids=str
)
def test_same_as_one_blob_at_a_time(
    changed: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = random_frames(np.random.default_rng(0), 12, 64, 48)
    clip = np.stack([grey, grey // 2, grey // 3], 1)
    frames = (torch.from_numpy(clip) / 255).numpy()
    settings = {**SETTINGS, "max_per_frame": 999, **changed}
    detector = BlobDetector(**settings)  # type: ignore[arg-type]
    monkeypatch.setattr(confidence, "_CHUNK", 1 << 15)  # several windows of different widths
    found = detector(clip)
    assert len(found) > 40
    for n in range(len(found)):
        number = int(found.frame[n])
        place = (float(value[n]) for value in (found.y, found.x))
        sigma = detector.sigmas[np.abs(detector.sigmas - float(found.sigma[n])).argmin()]
        brightness, circularity, color = measure_one(
            frames[number], frames[number].max(0), *place, sigma
        )
        size = np.exp(-(np.log(np.sqrt(2) * sigma / detector.expected_radius) ** 2) / 0.5)
        expected = brightness**0.5 * circularity**0.3 * size**0.2
        assert float(found.brightness[n]) == pytest.approx(brightness, abs=1e-5)
        assert float(found.circularity[n]) == pytest.approx(circularity, abs=1e-6)
        assert float(found.confidence[n]) == pytest.approx(expected, abs=1e-4)
        np.testing.assert_allclose(found.color[n], color, atol=1e-6)


def test_perimeter_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(1)
    regions = rng.random((200, 13, 9)) < rng.random((200, 1, 1))
    regions[0], regions[1] = False, True
    expected = [perimeter_crofton(region, 4) for region in regions]
    np.testing.assert_allclose(crofton_perimeter(regions), expected, rtol=1e-12, atol=0)


def test_disc_scores_high_spike_and_bar_low() -> None:
    image = np.zeros((64, 64))
    draw_disc(image, 16, 16, EXPECTED_RADIUS)  # more than a hundredth of the frame
    image[16, 48] = 1
    image[44, 4:60] = 1
    found = detect(image, threshold=0.05)
    assert score_at(found, 16, 16) >= 0.8
    assert score_at(found, 16, 48) <= 0.5
    on_bar = (found.y - 44).abs() < 5
    assert on_bar.any()
    assert (found.confidence[on_bar] <= 0.5).all()


def test_brightness_of_the_frame_changes_nothing() -> None:
    image = random_frames(np.random.default_rng(2), 1, 64, 64)[0] / 255
    full, half = detect(image), detect(image / 2, threshold=SETTINGS["threshold"] / 2)
    assert len(full) > 2
    assert torch.equal(full.y, half.y)
    torch.testing.assert_close(full.confidence, half.confidence, atol=1e-5, rtol=0)


def test_more_contrast_rounder_or_nearer_in_size_scores_higher() -> None:
    image = np.zeros((96, 96))
    for x, value in ((16, 0.4), (48, 0.7), (80, 1.0)):
        draw_disc(image, 16, x, EXPECTED_RADIUS, value)
    found = detect(image)
    scores = [score_at(found, 16, x) for x in (16, 48, 80)]
    assert scores == sorted(scores)
    assert scores[0] < scores[2] - 0.1

    shapes = np.zeros((2, 64, 64), np.float32)
    draw_disc(shapes[0], 32, 32, EXPECTED_RADIUS)
    for y in range(24, 41):
        draw_disc(shapes[1], y, 32, EXPECTED_RADIUS)
    blobs = np.array([[32, 32, 3.0], [32, 32, 3.0]])
    disc, stadium = measure_blobs(shapes[:, None], shapes, blobs, np.arange(2)).circularity
    assert disc > stadium + 0.05

    radii = np.array([1, 2, 4, 8, 16])
    factors = size_factor(radii, EXPECTED_RADIUS)
    assert factors[2] == 1
    assert (np.diff(factors) * [1, 1, -1, -1] > 0).all()
    np.testing.assert_allclose(factors, factors[::-1])


def test_ring_that_lies_outside_falls_back_to_the_median() -> None:
    grey = np.array([[[0.1, 0.9, 0.2]]], dtype=np.float32)
    seen = measure_blobs(grey[None], grey, np.array([[0.0, 1.0, 2.0]]), np.array([0]))
    low, high = np.percentile(grey, [1, 99])
    assert seen.brightness[0] == pytest.approx((0.4 - 0.2) / (high - low), abs=1e-6)


def test_blob_darker_than_its_ring_has_no_brightness() -> None:
    grey = np.ones((1, 40, 40), np.float32)
    grey[0, 16:25, 16:25] = 0
    seen = measure_blobs(grey[None], grey, np.array([[20.0, 20.0, 2.0]]), np.array([0]))
    assert (seen.brightness[0], seen.circularity[0]) == (0, 1)


def test_no_blob_is_legal() -> None:
    grey = np.zeros((2, 8, 8), np.float32)
    seen = measure_blobs(grey[:, None], grey, np.zeros((0, 3)), np.zeros(0, np.int64))
    assert (len(seen.brightness), len(seen.circularity), seen.color.shape) == (0, 0, (0, 3))
