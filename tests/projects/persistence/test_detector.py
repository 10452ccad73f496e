"""The batched detector finds what ``blob_log`` finds, whatever the image is like."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from skimage.feature import blob_log

from tests.projects.persistence.support_detector import SETTINGS, draw_disc, random_frames
from vidseg.config import get_cfg
from vidseg.errors import ConfigError
from vidseg.projects.persistence import add_config, detector, layouts, peaks
from vidseg.projects.persistence.detections import Detections
from vidseg.projects.persistence.detector import BlobDetector

FIELDS = ("frame", "y", "x", "sigma", "response", "brightness", "circularity", "confidence")


def build(**changed: object) -> BlobDetector:
    return BlobDetector(**{**SETTINGS, "max_per_frame": 64, **changed})  # type: ignore[arg-type]


def assert_same_as_blob_log(frames: np.ndarray, **changed: object) -> int:
    """Compares lists in their order and gives the number of blobs."""
    settings = {**SETTINGS, **changed}
    grey = torch.from_numpy(frames).float() / (255 if frames.dtype == np.uint8 else 1)
    found = build(**changed).detect_blobs(grey)
    for frame, blobs in zip(grey, found, strict=True):
        np.testing.assert_array_equal(blobs, blob_log(frame.double().numpy(), **settings))
    return sum(len(blobs) for blobs in found)


def assert_equal(one: Detections, other: Detections) -> None:
    for name in (*FIELDS, "color"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)
    assert (one.num_frames, one.size) == (other.num_frames, other.size)


@pytest.mark.parametrize(
    ("size", "num_frames"), [((64, 64), 150), ((128, 128), 30), ((48, 90), 30), ((170, 161), 4)]
)
def test_random_frames(size: tuple[int, int], num_frames: int) -> None:
    frames = random_frames(np.random.default_rng(size[0]), num_frames, *size)
    assert assert_same_as_blob_log(frames) > num_frames


@pytest.mark.slow
@pytest.mark.parametrize(("side", "num_frames"), [(64, 500), (128, 300)])
def test_many_random_frames(side: int, num_frames: int) -> None:
    rng = np.random.default_rng(side + 1)
    for noise in (0.0, 0.1):
        assert_same_as_blob_log(random_frames(rng, num_frames, side, side, noise))


@pytest.mark.parametrize(
    "changed",
    [
        {"log_scale": True, "num_sigma": 12},
        {"num_sigma": 1, "max_sigma": 1.5},
        {"num_sigma": 3, "max_sigma": 1.5},
        {"num_sigma": 40},
        {"min_sigma": 0.4, "max_sigma": 20.0},
        {"overlap": 0.0},
        {"overlap": 1.0},
        {"overlap": 0.1, "threshold": 0.01},
    ],
    ids=str,
)
def test_settings_of_the_reference(changed: dict[str, object]) -> None:
    frames = random_frames(np.random.default_rng(5), 4, 64, 64, noise=0.1)
    assert assert_same_as_blob_log(frames, **changed) > 0


def test_discs_across_the_border() -> None:
    frames = np.zeros((40, 64, 64))
    rng = np.random.default_rng(6)
    for n, frame in enumerate(frames):
        along, across = rng.uniform(-2, 65), rng.uniform(-2, 2)
        place = [(across, along), (63 - across, along), (along, across), (along, 63 - across)]
        draw_disc(frame, *place[n % 4], rng.uniform(2, 6))
    for corner in ((0, 0), (0, 63), (63, 0), (63, 63)):
        draw_disc(frames[-1], *corner, 4)
    assert assert_same_as_blob_log(frames.astype(np.float32)) >= 36


def symmetric_frames() -> np.ndarray:
    """Gives images where many responses are equal in exact arithmetic."""
    rows, columns = np.mgrid[:64, :64]
    quarter = random_frames(np.random.default_rng(7), 1, 32, 32)[0] / 255
    mirrored = np.block([[quarter, quarter[:, ::-1]], [quarter[::-1], quarter[::-1, ::-1]]])
    between = np.zeros((64, 64))
    draw_disc(between, 31.5, 31.5, 4)
    return np.stack(
        [
            (rows // 8 + columns // 8) % 2,
            columns // 6 % 2,
            np.kron(np.eye(8), np.ones((8, 8))),
            (rows % 16 == 8) & (columns % 16 == 8),
            mirrored,
            between,
            np.minimum(rows, columns) / 64,
        ]
    ).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.1, 0.02])
def test_ties_end_as_in_the_reference(threshold: float) -> None:
    frames = symmetric_frames()
    assert assert_same_as_blob_log(frames, threshold=threshold) > 20
    assert_same_as_blob_log(frames.transpose(0, 2, 1).copy(), threshold=threshold)


def test_ties_that_are_settled_by_crops_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_MOST_CROPS", 10**6)
    assert assert_same_as_blob_log(symmetric_frames()[[0, 2, 4, 5]]) > 10


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (7, 5), (12, 12)])
def test_small_and_flat_frames(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(8).random((4, *shape)).astype(np.float32)
    flat = np.stack([np.zeros(shape), np.ones(shape)]).astype(np.float32)
    for frames in (random, flat):
        for num_sigma in (1, 3):
            assert_same_as_blob_log(frames, threshold=1e-4, num_sigma=num_sigma)


def test_chained_overlaps_are_resolved_in_the_order_of_the_reference() -> None:
    frames = random_frames(np.random.default_rng(9), 20, 64, 64, noise=0.3)
    assert assert_same_as_blob_log(frames, overlap=0.05, threshold=0.05) > 200


def test_backends_agree() -> None:
    clip = np.repeat(random_frames(np.random.default_rng(10), 9, 64, 64)[:, None], 3, 1)
    clip[:, 1] //= 2
    assert_equal(build()(clip), build(backend="skimage")(clip))


def test_layout_and_type_change_nothing() -> None:
    clip = np.repeat(random_frames(np.random.default_rng(11), 9, 64, 64)[:, None], 3, 1)
    expected = build()(clip)
    assert len(expected) > 9
    assert_equal(build()(clip.transpose(0, 2, 3, 1)), expected)
    assert_equal(build()(torch.from_numpy(clip).float() / 255), expected)
    assert_equal(build()(clip[:, 0]), expected)


def test_only_a_chunk_of_frames_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = random_frames(np.random.default_rng(12), 11, 64, 64)
    expected = build()(clip)
    lengths = []
    read = layouts.ClipFrames.__getitem__
    monkeypatch.setattr(detector, "_CHUNK", 4 * 8 * 64 * 64)
    monkeypatch.setattr(
        layouts.ClipFrames,
        "__getitem__",
        lambda self, frames: (part := read(self, frames), lengths.append(len(part)))[0],
    )
    assert_equal(build()(clip), expected)
    assert lengths == [4, 4, 3]
    assert [len(blobs) for blobs in build().detect_blobs(torch.from_numpy(clip) / 255)] == (
        expected.frame.bincount(minlength=11).tolist()
    )


def test_rows_are_sorted_and_limited() -> None:
    clip = random_frames(np.random.default_rng(13), 9, 64, 64)
    every = build()(clip)
    few = build(max_per_frame=2)(clip)
    for number in range(9):
        confidence = every.confidence[every.frame == number]
        assert torch.equal(confidence, confidence.sort(descending=True).values)
        assert torch.equal(few.confidence[few.frame == number], confidence[:2])
    assert torch.equal(every.frame, every.frame.sort().values)
    torch.testing.assert_close(every.radius, every.sigma * 2**0.5)


def test_grey_of_a_red_disc() -> None:
    clip = np.zeros((1, 3, 64, 64))
    draw_disc(clip[0, 0], 20, 30, 4)
    white = np.repeat(clip[:, :1], 3, 1)
    red = build()(clip)
    torch.testing.assert_close(red.response, build()(white).response)
    torch.testing.assert_close(red.color, torch.tensor([[1.0, 0, 0]]) * red.color[:, :1])
    luma = build(grey="luma")(clip)
    torch.testing.assert_close(luma.response, 0.299 * red.response)
    assert len(build(grey="luma", threshold=0.3)(clip)) < len(build(threshold=0.3)(clip)) == 1


def test_dark_discs_on_light_ground() -> None:
    clip = np.zeros((1, 3, 64, 64))
    draw_disc(clip[0, 0], 20, 30, 4)
    clip[0, 1:] = clip[0, 0]
    bright, dark = build()(clip), build(grey="dark")(1 - clip)
    for name in FIELDS:
        torch.testing.assert_close(getattr(dark, name), getattr(bright, name), atol=1e-5, rtol=0)
    torch.testing.assert_close(dark.color, 1 - bright.color)
    # A dark blue disc is as strong as a black one: what counts is its darkest channel.
    blue = 1 - clip
    blue[:, 2] = 1
    torch.testing.assert_close(build(grey="dark")(blue).response, dark.response)


def test_clip_without_blobs_is_legal_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    silent = np.full((8, 48, 64, 3), 7, np.uint8)
    detect = build()
    with caplog.at_level(logging.WARNING):
        found = detect(silent[:7])
        assert (len(found), found.num_frames, found.size) == (0, 7, (48, 64))
        assert found.color.shape == (0, 3)
        assert not caplog.records
        detect(silent)
        detect(silent)
    assert [record.getMessage() for record in caplog.records] == [
        "no blob in any of 8 frames, read as THWC with values from 7 to 7, at a threshold of 0.1; "
        "a wrong layout or range looks like this (said once)"
    ]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("BACKEND", "skimag", "is 'skimag'; nearest: skimage"),
        ("GREY", "mean", "is 'mean'; nearest: max, luma, dark"),
        ("MIN_SIGMA", 0.0, "is 0.0; it must be above 0"),
        ("MAX_SIGMA", 1.0, "is 1.0; min_sigma is 1.5"),
        ("NUM_SIGMA", 0, "is 0; it must be 1 or more"),
        ("THRESHOLD", 0.0, "is 0.0; it must be above 0"),
        ("OVERLAP", 1.5, "is 1.5; it must lie within 0 to 1"),
        ("MAX_PER_FRAME", 0, "is 0; it must be 1 or more"),
        ("EXPECTED_RADIUS", -1.0, "is -1.0; it cannot be negative"),
        ("CONFIDENCE_WEIGHTS", [0.5, 0.5], r"is \[0.5, 0.5\]; give three"),
        ("CONFIDENCE_WEIGHTS", [0.8, 0.4, -0.2], "0 or more and sum to 1"),
        ("CONFIDENCE_WEIGHTS", [0.5, 0.3, 0.3], "0 or more and sum to 1"),
    ],
)
def test_config_values_out_of_range(key: str, value: object, said: str) -> None:
    cfg = get_cfg()
    add_config(cfg)
    BlobDetector.from_config(cfg)
    cfg.MODEL.PERSISTENCE.DETECTOR[key] = value
    with pytest.raises(ConfigError, match=f"MODEL.PERSISTENCE.DETECTOR.{key} .*{said}"):
        BlobDetector.from_config(cfg)


def test_settings_tell_all_keys_apart() -> None:
    cfg = get_cfg()
    add_config(cfg)
    node = cfg.MODEL.PERSISTENCE.DETECTOR
    settings = BlobDetector.from_config(cfg).settings()
    assert settings == {name.lower(): value for name, value in node.items()}
    assert BlobDetector(**settings).settings() == settings
