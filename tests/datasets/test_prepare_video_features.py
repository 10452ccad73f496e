from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidseg.config import get_cfg
from vidseg.errors import UserError
from vidseg.modeling import build_backbone
from vidseg.modeling.build import BACKBONE_REGISTRY
from vidseg.structures import ShapeSpec
from vidseg.video.io import VideoFrame, VideoReader
from vidseg.video.writer import VideoWriter

SCRIPTS = Path(__file__).parents[2] / "datasets"
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


class MeanColour(nn.Module):
    """Cells of 4 pixels with their mean colour; asks for sides that are multiples of 32."""

    size_divisibility = 32

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"res2": ShapeSpec(channels=3, stride=4)}

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        assert frames.shape[2] % 32 == frames.shape[3] % 32 == 0
        return {"res2": nn.functional.avg_pool2d(frames, 4) * self.weight}


@pytest.fixture
def script() -> Any:
    return importlib.import_module("prepare_video_features")


@pytest.fixture
def mean_colour() -> Iterable[str]:
    if "mean_colour" not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(MeanColour, name="mean_colour")
    return "mean_colour"


def _write_video(path: Path, num_frames: int, *, fps: float = 10.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with VideoWriter(path, fps=fps) as writer:
        for number in range(num_frames):
            colour = rng.integers(0, 255, 3, dtype=np.uint8)
            writer.write(np.full((48, 64, 3), colour), time=number / fps)
    return path


def _index(out: Path) -> dict[str, Any]:
    return json.loads((out / "index.json").read_text())


def test_features_are_those_of_the_backbone(script: Any, tmp_path: Path) -> None:
    name = "torchvision/mobilenet_v2"
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    backbone = build_backbone(cfg).eval()
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    video = _write_video(tmp_path / "street.mp4", 5)
    out = tmp_path / "out"
    words = [str(video), str(out), "--backbone", name, "--weights", str(tmp_path / "weights.pth")]
    options = ["--feature-map", "res4", "--batch-size", "2", "--opts", "INPUT.MIN_SIZE_TEST", "0"]
    assert script.main([*words, *options]) == 0
    document = {"id": "street", "path": "street.npy", "length": 5, "frame_rate": 10.0}
    assert _index(out) == {"documents": [document], "feature_dim": 96}
    features = np.load(out / "street.npy")
    assert (features.shape, features.dtype) == ((5, 96), np.float32)
    with torch.no_grad():
        for row, frame in zip(features, VideoReader(video), strict=True):
            x = (torch.from_numpy(frame).permute(2, 0, 1) - MEAN) / STD
            expected = backbone(x[None])["res4"].mean((2, 3))[0]
            np.testing.assert_allclose(row, expected, atol=1e-5)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_padding_does_not_count(script: Any, mean_colour: str, tmp_path: Path, order: str) -> None:
    video = _write_video(tmp_path / "a.mp4", 1)
    out = tmp_path / "out"
    config = tmp_path / "config.yaml"
    config.write_text(f"MODEL: {{PIXEL_MEAN: [9, 9, 9]}}\nINPUT: {{FORMAT: {order}}}\n")
    words = [str(video), str(out), "--backbone", mean_colour, "--random-weights"]
    sizes = ["--opts", "INPUT.MIN_SIZE_TEST", "40"]  # 40 x 53 pixels, padded to 64 x 64
    assert script.main([*words, "--config-file", str(config), *sizes]) == 0
    (image,) = VideoReader(video)
    colour = image.mean((0, 1)) - 9
    (row,) = np.load(out / "a.npy")
    # The last column of cells hangs over by 3 of its 4 pixels.
    whole = 53 / 56
    np.testing.assert_allclose(row, (colour if order == "RGB" else colour[::-1]) * whole, rtol=0.01)


def test_inputs_that_fail_do_not_stop_the_others(
    script: Any, mean_colour: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    _write_video(folder / "b.mp4", 3)
    _write_video(folder / "a" / "b.mp4", 2)
    whole = (folder / "b.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.mp4").touch()
    words = [str(folder), str(folder / "a"), str(tmp_path / "absent.mp4"), str(tmp_path / "out")]
    assert script.main([*words, "--backbone", mean_colour, "--random-weights"]) == 1
    told = capsys.readouterr().err
    for name in ("cut.mp4", "empty.mp4", "absent.mp4"):
        assert told.count(f"{name}") == 1, told
    documents = _index(tmp_path / "out")["documents"]
    assert [(d["id"], d["length"]) for d in documents] == [("b", 3), ("b_2", 2)]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["b.npy", "b_2.npy", "index.json"]


def test_topics_by_rule(script: Any, mean_colour: str, tmp_path: Path) -> None:
    for name in ("cook/x", "cook/y", "drive/x", "other"):
        _write_video(tmp_path / "videos" / f"{name}.mp4", 1)
    paths = [str(tmp_path / "videos" / name) for name in ("cook", "drive", "other.mp4")]
    words = [*paths, str(tmp_path / "out"), "--backbone", mean_colour, "--random-weights"]
    assert script.main([*words, "--topics", r".*/(cook|drive)/=\1"]) == 0
    index = _index(tmp_path / "out")
    assert index["topics"] == ["cook", "drive"]
    assert [d["topic"] for d in index["documents"]] == ["cook", "cook", "drive"]


def test_frame_rate_is_the_one_asked_for(script: Any, mean_colour: str, tmp_path: Path) -> None:
    video = _write_video(tmp_path / "a.mp4", 20, fps=10.0)
    words = ["--backbone", mean_colour, "--random-weights"]
    script.main([str(video), str(tmp_path / "all"), *words])
    script.main([str(video), str(tmp_path / "some"), *words, "--fps", "5"])
    every = np.load(tmp_path / "all" / "a.npy")
    np.testing.assert_allclose(np.load(tmp_path / "some" / "a.npy"), every[::2], atol=1e-5)
    assert _index(tmp_path / "some")["documents"][0]["frame_rate"] == 5


@pytest.mark.parametrize(
    ("times", "fps", "shown"),
    [
        ([0, 0.1, 0.2, 0.3], 10, [0, 1, 2, 3]),
        ([0, 0.1, 0.2, 0.3], 20, [0, 0, 1, 1, 2, 2, 3]),
        ([0, 0.05, 0.5, 0.55], 5, [0, 1, 1]),  # variable rate
        ([0], 3, [0]),
    ],
)
def test_ticks_of_a_clock(script: Any, times: list[float], fps: float, shown: list[int]) -> None:
    image = np.zeros((1, 1, 3), dtype=np.uint8)
    frames = [VideoFrame(index, time, image) for index, time in enumerate(times)]
    assert [frame.index for frame in script._at_rate(frames, fps)] == shown


def test_data_set_can_be_read(script: Any, mean_colour: str, tmp_path: Path) -> None:
    features = pytest.importorskip("vidseg.data.features")
    for number in range(2):
        _write_video(tmp_path / "videos" / f"{number}.mp4", 3 + number, fps=4.0)
    words = [str(tmp_path / "videos"), str(tmp_path / "out"), "--backbone", mean_colour]
    script.main([*words, "--random-weights"])
    records = features.load_feature_index(tmp_path / "out" / "index.json")
    assert not records.damaged
    assert [(r["length"], r["frame_rate"]) for r in records] == [(3, 4.0), (4, 4.0)]


@pytest.mark.parametrize(
    ("words", "message", "exit_code"),
    [
        (["a.mp4", "out"], "torchvision/resnet50 has no weights: give a file with --weights", 2),
        (["a.mp4", "out", "--weights", "absent.pth"], "absent.pth", 1),
        (["a.mp4", "out", "--weights", "a.mp4"], "a.mp4", 1),
        (["a.mp4", "out", "--weights", "a.mp4", "--random-weights"], "either", 2),
        (["a.mp4", "out", "--backbone", "timn/x", "--random-weights"], "timn/x", 2),
        (["text.mp4", "out", "--random-weights"], "not one of 1 videos can be used", 1),
        (["a.mp4", "full", "--random-weights"], "full is there already", 2),
        (["a.mp4", "out", "--topics", "b=c", "--random-weights"], "none of the videos fits", 1),
        (["a.mp4", "out", "--opts", "MODEL.X", "1", "--random-weights"], "MODEL.X", 2),
        (["-", "out", "--random-weights"], "not one of 1 videos", 1),
        (["a.mp4", "out", "--feature-map", "res6", "--random-weights"], "did you mean res", 2),
    ],
)
def test_faults(
    script: Any,
    mean_colour: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
    exit_code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_video(Path("a.mp4"), 1)
    Path("text.mp4").write_text("no video")
    Path("full").mkdir()
    Path("full/file").touch()
    if "--backbone" not in words and "--weights" not in words and len(words) > 2:
        words = [*words, "--backbone", mean_colour]
    with pytest.raises(UserError) as caught:
        script.main(words)
    assert message in str(caught.value)
    assert caught.value.exit_code == exit_code
    assert sorted(path.name for path in Path().iterdir()) == ["a.mp4", "full", "text.mp4"]


def test_features_that_are_no_numbers(
    script: Any, mean_colour: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = _write_video(tmp_path / "a.mp4", 1)
    torch.save({"weight": torch.tensor([torch.nan])}, tmp_path / "w.pth")
    words = [str(video), str(tmp_path / "out"), "--backbone", mean_colour]
    with pytest.raises(UserError, match="not one of 1 videos"):
        script.main([*words, "--weights", str(tmp_path / "w.pth")])
    assert "no numbers" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_rows_are_written_as_they_come(tmp_path: Path, dtype: str) -> None:
    feature_folder = importlib.import_module("feature_folder")
    rows = np.random.default_rng(0).standard_normal((1000, 7)).astype(dtype)
    with feature_folder.FeatureFile(tmp_path / "a.npy", dtype) as file:
        for start in range(0, 1000, 300):
            file.append(rows[start : start + 300])
    np.save(tmp_path / "b.npy", rows)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, prepare_video_features\n"
        "try: prepare_video_features.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
