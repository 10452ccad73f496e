"""The predictor with a model that finds the bright square of a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vidseg import VideoPredictor, rle
from vidseg.config import CfgNode, load_config
from vidseg.engine.precision import Precision
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.modeling import META_ARCH_REGISTRY, build_model
from vidseg.structures import VideoInstances
from vidseg.video.io import VideoReader, VideoWriter

SIZE = (24, 32)


class Session:
    """Remembers the windows that it was fed."""

    def __init__(self, model: BrightSquare, output_size: tuple[int, int]) -> None:
        self.model, self.output_size = model, output_size
        self.is_offline = model.is_offline
        self.masks: list[rle.RLE | None] = []
        model.windows = []

    def step(self, frames: Tensor) -> VideoInstances:
        assert not torch.is_grad_enabled()
        self.model.windows.append(tuple(frames.shape))
        start = len(self.masks)
        for frame in frames:
            bright = (frame.amin(0) > 200).float()[None, None]
            mask = nn.functional.interpolate(bright, self.output_size)[0, 0] > 0.5
            self.masks.append(rle.encode(mask) if mask.any() else None)
        hidden = self.is_offline
        return self.result([] if hidden else self.masks[start:], len(frames))

    def finish(self) -> VideoInstances:
        return self.result(self.masks, len(self.masks))

    def result(self, masks: Sequence[rle.RLE | None], count: int) -> VideoInstances:
        indices = list(range(count))
        if not any(mask is not None for mask in masks):
            return VideoInstances.empty(self.output_size, indices)
        label, score = torch.tensor([2]), torch.tensor([0.8])
        return VideoInstances(
            score, label, torch.tensor([5]), [list(masks)], self.output_size, indices
        )


class BrightSquare(nn.Module):
    """A whole model with one weight."""

    def __init__(self, *, is_offline: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.is_offline = is_offline
        self.windows: list[tuple[int, ...]] = []

    def start(self, *, output_size: tuple[int, int], frame_indices: Any = None) -> Session:
        return Session(self, output_size)


class Shy(nn.Module):
    """A model that knows no videos."""


def frame(number: int) -> np.ndarray:
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    if number != 3:
        image[4:14, 2 + number : 12 + number] = 255
    return image


def frames(count: int = 7) -> list[np.ndarray]:
    return [frame(number) for number in range(count)]


@pytest.fixture
def predictor() -> VideoPredictor:
    return VideoPredictor(BrightSquare(), window_size=3, class_names=["a", "b", "c"])


def video_file(folder: Path) -> Path:
    with VideoWriter(folder / "clip.mp4", fps=10, quality=1) as writer:
        for image in frames():
            writer.write(image)
    return folder / "clip.mp4"


def picture_folder(folder: Path) -> Path:
    for number, image in enumerate(frames()):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


SOURCES: dict[str, Callable[[Path], Any]] = {
    "video": video_file,
    "video as text": lambda folder: str(video_file(folder)),
    "folder": picture_folder,
    "pictures": lambda folder: sorted(picture_folder(folder).iterdir()),
    "reader": lambda folder: VideoReader(video_file(folder)),
    "frames of a reader": lambda folder: VideoReader(video_file(folder)).frames(),
    "arrays": lambda _: frames(),
    "array": lambda _: np.stack(frames()),
    "tensors": lambda _: [torch.from_numpy(image).permute(2, 0, 1) for image in frames()],
    "tensor": lambda _: torch.from_numpy(np.stack(frames())).permute(0, 3, 1, 2),
    "camera": lambda _: iter(frames()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources_of_all_kinds(predictor: VideoPredictor, tmp_path: Path, kind: str) -> None:
    result = predictor.predict(SOURCES[kind](tmp_path))
    assert result.frame_indices == list(range(7))
    assert result.image_size == SIZE
    assert result.track_ids.tolist() == [5]
    assert [mask is None for mask in result.masks[0]] == [n == 3 for n in range(7)]
    wanted = np.stack([image[..., 0] > 0 for image in frames()])
    assert (result.masks_tensor()[0].numpy() == wanted).mean() > 0.99


@pytest.mark.parametrize("window_size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("is_offline", [False, True])
def test_windows_of_a_stream_make_up_the_whole(window_size: int, is_offline: bool) -> None:
    predictor = VideoPredictor(BrightSquare(is_offline=is_offline), window_size=window_size)
    whole = predictor.predict(frames())
    windows = list(predictor.stream(frames()))
    assert [i for window in windows for i in window.frame_indices] == list(range(7))
    assert all(len(window.frame_indices) <= window_size for window in windows)
    joined = torch.cat(
        [
            w.masks_tensor() if len(w) else torch.zeros(1, w.num_frames, *SIZE, dtype=torch.bool)
            for w in windows
        ],
        dim=1,
    )
    assert torch.equal(joined, whole.masks_tensor())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("is_offline", [False, True])
def test_mixed_precision_is_that_of_testing(
    monkeypatch: pytest.MonkeyPatch, is_offline: bool
) -> None:
    seen: list[bool] = []
    for name in ("step", "finish"):
        original = getattr(Session, name)

        def spy(self: Session, *frames: Tensor, original: Any = original) -> VideoInstances:
            seen.append(torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled())
            return original(self, *frames)

        monkeypatch.setattr(Session, name, spy)
    model = BrightSquare(is_offline=is_offline)
    predictor = VideoPredictor(model, precision=Precision("cpu", torch.bfloat16))
    predictor.predict(frames())
    for _ in predictor.stream(frames()):
        assert not torch.is_autocast_enabled("cpu")
    assert len(seen) >= 7
    assert all(seen)
    seen.clear()
    VideoPredictor(model).predict(frames())
    assert seen
    assert not any(seen)


def test_stream_answers_before_the_source_ends(predictor: VideoPredictor) -> None:
    read = []

    def camera() -> Iterator[np.ndarray]:
        for number in range(1000):
            read.append(number)
            yield frame(number % 10)

    window = next(predictor.stream(camera()))
    assert window.frame_indices == [0, 1, 2]
    assert len(read) < 8


def test_streams_side_by_side_know_nothing_of_one_another(tiny_cfg: Any) -> None:
    head = "MODEL.VIDEO_HEAD."
    names = ("INFERENCE_SELECT_THRESHOLD", "AUX_INFERENCE_SELECT_THRESHOLD", "DIS_FG_THRESHOLD")
    low = [word for name in names for word in (head + name, 0.15)]
    torch.manual_seed(1)
    model = build_model(tiny_cfg("dvis_daq", "online", *low))
    predictor = VideoPredictor(model, window_size=1)
    videos = [frames(4), [np.rot90(image, 2).copy() for image in frames(4)]]
    alone = [list(predictor.stream(video)) for video in videos]
    together = zip(*(predictor.stream(video) for video in videos), strict=True)
    for expected, found in zip(zip(*alone, strict=True), together, strict=True):
        for window, other in zip(expected, found, strict=True):
            assert len(window)
            assert window.track_ids.tolist() == other.track_ids.tolist()
            assert torch.equal(window.scores, other.scores)
            assert window.masks == other.masks


def test_frame_numbers_are_those_of_the_video(predictor: VideoPredictor, tmp_path: Path) -> None:
    reader = VideoReader(video_file(tmp_path), every=2)
    assert predictor.predict(reader).frame_indices == [0, 2, 4, 6]
    assert [w.frame_indices for w in predictor.stream(reader)] == [[0, 2, 4], [6]]


def test_frames_are_resized_as_in_testing_and_masks_are_not() -> None:
    model = BrightSquare()
    predictor = VideoPredictor(model, window_size=4, min_size=48, max_size=60)
    result = predictor.predict(frames())
    assert model.windows == [(4, 3, 45, 60), (3, 3, 45, 60)]
    assert result.image_size == SIZE


def test_model_is_put_into_eval_mode(predictor: VideoPredictor) -> None:
    assert not predictor.model.training


def test_no_frames_and_models_without_sessions_are_named(predictor: VideoPredictor) -> None:
    for source in ([], iter([])):
        with pytest.raises(DataError, match="no frame"):
            predictor.predict(source)
    with pytest.raises(DataError, match=r"nowhere\.mp4"):
        list(predictor.stream("nowhere.mp4"))
    with pytest.raises(UserError, match="Shy"):
        VideoPredictor(Shy()).predict(frames())
    with pytest.raises(ConfigError, match="window"):
        VideoPredictor(BrightSquare(), window_size=0)


def test_results_use_category_ids(predictor: VideoPredictor) -> None:
    result = predictor.predict(frames())
    (record,) = predictor.results(result, "clip")
    assert record["category_id"] == 3
    assert record["video_id"] == "clip"
    assert record["segmentations"][3] is None
    predictor.category_ids = [10, 20, 30]
    assert predictor.results(result)[0]["category_id"] == 30
    assert predictor.class_name(2) == "c"
    assert predictor.class_name(9) == "class 9"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = META_ARCH_REGISTRY.get
    monkeypatch.setattr(
        META_ARCH_REGISTRY,
        "get",
        lambda name: (lambda _: BrightSquare()) if name == "BrightSquare" else found(name),
    )


def config(tmp_path: Path, *overrides: Any) -> CfgNode:
    base = ["MODEL.META_ARCHITECTURE", "BrightSquare", "MODEL.DEVICE", "cpu"]
    return load_config(None, [*base, "OUTPUT_DIR", str(tmp_path), *overrides])


@pytest.mark.usefixtures("registered")
def test_from_config_reads_sizes_classes_and_weights(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.tensor([4.0])}}, tmp_path / "mine.pth")
    cfg = config(
        tmp_path,
        *("INPUT.MIN_SIZE_TEST", 48, "MODEL.MASK_FORMER.TEST.WINDOW_SIZE", 2),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 40, "DATASETS.TEST", "('ytvis_2019_val',)"),
    )
    predictor = VideoPredictor.from_config(cfg, weights=tmp_path / "mine.pth")
    assert predictor.model.weight.item() == 4
    assert (predictor.window_size, predictor.min_size) == (2, 48)
    assert predictor.precision.dtype is None
    assert predictor.class_names is not None
    assert predictor.class_names[0] == "person"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    cfg.SOLVER.AMP.ENABLED = True
    predictor = VideoPredictor.from_config(cfg, tmp_path / "mine.pth")
    assert predictor.class_names is None
    assert predictor.precision.dtype is torch.bfloat16


@pytest.mark.usefixtures("registered")
def test_weights_are_those_given_or_configured_or_trained(tmp_path: Path) -> None:
    for name, value in (("given", 1), ("configured", 2), ("model_final", 3)):
        torch.save({"weight": torch.tensor([float(value)])}, tmp_path / f"{name}.pth")
    configured = config(tmp_path, "MODEL.WEIGHTS", str(tmp_path / "configured.pth"))
    cases = [
        (VideoPredictor.from_config(configured, tmp_path / "given.pth"), 1),
        (VideoPredictor.from_config(configured), 2),
        (VideoPredictor.from_config(config(tmp_path)), 3),
    ]
    assert [int(predictor.model.weight.item()) for predictor, _ in cases] == [1, 2, 3]


@pytest.mark.usefixtures("registered")
def test_device_comes_before_that_of_the_config(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "mine.pth")
    cfg = config(tmp_path, "MODEL.DEVICE", "cuda:77")
    predictor = VideoPredictor.from_config(cfg, tmp_path / "mine.pth", device="cpu")
    assert next(predictor.model.parameters()).device.type == "cpu"
    assert cfg.MODEL.DEVICE == "cuda:77"
    with pytest.raises(ConfigError, match="gpu is not usable here"):
        VideoPredictor.from_config(cfg, tmp_path / "mine.pth", device="gpu")


def test_weights_of_another_stage_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BrightSquare()
    model.tracker = nn.Linear(2, 2)
    monkeypatch.setattr(META_ARCH_REGISTRY, "get", lambda name: lambda _: model)
    torch.save(BrightSquare().state_dict(), tmp_path / "segmenter.pth")
    with pytest.raises(UserError, match=r"segmenter\.pth has no weights for tracker of Bright"):
        VideoPredictor.from_config(config(tmp_path), weights=tmp_path / "segmenter.pth")
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    VideoPredictor.from_config(config(tmp_path), weights=tmp_path / "whole.pth")


@pytest.mark.usefixtures("registered")
def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model_final\.pth does not exist; train"):
        VideoPredictor.from_config(config(tmp_path))
    with pytest.raises(DataError, match=r"gone\.pth does not exist"):
        VideoPredictor.from_config(config(tmp_path), weights=tmp_path / "gone.pth")
    with pytest.raises(ConfigError, match="config file"):
        VideoPredictor.from_config(config(tmp_path), overrides=["SEED", 1])
