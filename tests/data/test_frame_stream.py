"""Videos that are decoded on the way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.data import ClipMapper, build_test_loader
from vidseg.data.frame_stream import FrameStream
from vidseg.data.mappers import DATASET_MAPPER_REGISTRY
from vidseg.errors import DataError


@pytest.fixture
def cfg(small_set) -> CfgNode:
    cfg = get_cfg()
    cfg.DATASETS.TEST = (str(small_set.path),)
    cfg.INPUT.MIN_SIZE_TEST = 12
    return cfg


class Reader:
    """Counts what is read."""

    def __init__(self, length: int) -> None:
        self.frames = torch.arange(length * 12).to(torch.uint8).reshape(length, 3, 2, 2)
        self.read: list[int] = []

    def __call__(self, index: int) -> torch.Tensor:
        self.read.append(index)
        return self.frames[index]


@pytest.mark.parametrize("threads", [0, 2])
def test_it_is_read_like_a_tensor(threads: int) -> None:
    reader = Reader(11)
    with ThreadPoolExecutor(2) as pool:
        frames = FrameStream(reader, (11, 3, 2, 2), pool=pool if threads else None, ahead=3)
        assert (len(frames), frames.shape) == (11, (11, 3, 2, 2))
        assert [len(window) for window in frames.split(4)] == [4, 4, 3]
        for window, expected in zip(frames.split(4), reader.frames.split(4), strict=True):
            assert torch.equal(window, expected)
        for key in (slice(2, 9, 3), slice(5, 5), slice(-2, None), 4, -1, slice(None, None, -1)):
            expected = reader.frames[list(range(11))[key]] if isinstance(key, slice) else None
            assert torch.equal(frames[key], reader.frames[key] if expected is None else expected)
        with pytest.raises(IndexError):
            frames[11]


def test_frames_ahead_are_bounded_and_read_once() -> None:
    reader = Reader(40)
    with ThreadPoolExecutor(1) as pool:
        frames = FrameStream(reader, (40, 3, 2, 2), pool=pool, ahead=5)
        frames.start()
        pool.submit(int).result()  # the thread has nothing more to do
        assert reader.read == [0, 1, 2, 3, 4, 5]
        for number, _ in enumerate(frames.split(3)):
            pool.submit(int).result()
            assert max(reader.read) <= 3 * number + 2 + 5
            assert len(frames._pending) <= 5
        assert reader.read == list(range(40))
        frames[30]
        frames.close()
        assert not frames._pending


def test_frames_of_a_closed_stream_are_not_read() -> None:
    reader, hold = Reader(9), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold.wait)
        frames = FrameStream(reader, (9, 3, 2, 2), pool=pool, ahead=4)
        frames.start()
        frames.close()
        hold.set()
    assert reader.read == []


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_videos_equal_whole_ones(cfg, workers: int) -> None:
    cfg.DATALOADER.NUM_WORKERS = workers
    whole = build_test_loader(cfg, cfg.DATASETS.TEST[0])
    streamed = build_test_loader(cfg, cfg.DATASETS.TEST[0], streamed=True)
    assert len(streamed) == len(whole) == 2
    before = threading.active_count()
    for (sample,), (expected,) in zip(streamed, whole, strict=True):
        frames = sample["frames"]
        assert isinstance(frames, FrameStream)
        assert torch.equal(torch.cat(list(frames.split(4))), expected["frames"])
        for key in expected.keys() - {"frames"}:
            assert sample[key] == expected[key]
    assert threading.active_count() <= before + 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_videos_are_told_and_left_out(cfg, small_set, streamed: bool, workers: int) -> None:
    cfg.DATALOADER.NUM_WORKERS = workers
    small_set.frame(0, 3).unlink()  # of video 4
    damaged: dict[Any, str] = {}
    name = cfg.DATASETS.TEST[0]
    options: Any = {"on_damaged": damaged.__setitem__, "streamed": streamed}
    assert [sample["video_id"] for (sample,) in build_test_loader(cfg, name, **options)] == [2]
    assert list(damaged) == [4]
    assert "there is no " in damaged[4]
    with pytest.raises(DataError, match=r"there is no .*v4/003\.png"):
        build_test_loader(cfg, name, streamed=streamed)


def test_a_frame_that_cannot_be_decoded_fails_where_it_is_needed(cfg, small_set) -> None:
    small_set.frame(0, 5).write_bytes(b"rubbish")
    *_, (sample,) = build_test_loader(cfg, cfg.DATASETS.TEST[0], streamed=True)
    windows = sample["frames"].split(3)
    assert next(windows).shape == (3, 3, 12, 16)
    with pytest.raises(DataError, match=r"frame .*v4/005\.png cannot be read"):
        next(windows)


@pytest.mark.parametrize("streamed", [False, True])
def test_finished_videos_are_left_out(cfg, streamed: bool) -> None:
    name = cfg.DATASETS.TEST[0]
    loader = build_test_loader(cfg, name, finished={4}, streamed=streamed)
    assert len(loader) == 1
    assert [sample["video_id"] for (sample,) in loader] == [2]
    assert list(build_test_loader(cfg, name, finished={2, 4}, streamed=streamed)) == []


def test_a_derived_mapper_is_not_bypassed(cfg, monkeypatch: pytest.MonkeyPatch) -> None:
    class Marking(ClipMapper):
        def __call__(self, record: Any, rng: Any) -> Any:
            return {**(super().__call__(record, rng) or {}), "mark": 1}

    monkeypatch.setattr(DATASET_MAPPER_REGISTRY, "get", lambda name: Marking)
    for (sample,) in build_test_loader(cfg, cfg.DATASETS.TEST[0], streamed=True):
        assert sample["mark"] == 1
        assert isinstance(sample["frames"], torch.Tensor)
