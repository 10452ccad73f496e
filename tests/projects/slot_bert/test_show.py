"""The commands on a user's own videos: what ``show`` and ``tools/demo.py`` write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.faults.ground import tool_module
from tests.projects.slot_bert.picture_ground import moving_squares
from vidseg import rle
from vidseg.config import load_config
from vidseg.errors import ConfigError
from vidseg.modeling import build_model
from vidseg.projects.slot_bert.__main__ import main
from vidseg.projects.slot_bert.model import SlotBERT
from vidseg.projects.slot_bert.showing import attention_by_iteration
from vidseg.video.io import VideoReader, VideoWriter

PROJECT = Path(__file__).resolve().parents[3] / "projects" / "slot_bert"
CONFIG = PROJECT / "tiny_cpu.yaml"
CPU = ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False"]
VIEWS = ("original", "segmentation", "reconstruction", "slots", "panels")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset's weights as they are before training."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(build_model(load_config(CONFIG, CPU)).state_dict(), file)
    return file


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of 7 frames, 48 x 40 pixels, 10 per second."""
    frames, _ = moving_squares(7, 48)
    with VideoWriter(tmp_path / "clip.mp4", fps=10.0) as writer:
        for frame in frames.permute(0, 2, 3, 1).numpy():
            writer.write(frame[:40])
    return tmp_path / "clip.mp4"


def show(weights: Path, output: Path, *words: object) -> int:
    given = ["show", "--config-file", CONFIG, "--weights", weights, "--output", output, *words]
    return main([*map(str, given), *CPU])


def test_show_writes_everything(
    weights: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(weights, tmp_path / "out", "--input", clip) == 0
    folder = tmp_path / "out" / "clip"
    videos = {f"{name}.{kind}" for name in VIEWS for kind in ("mp4", "gif")}
    others = {"grid.png", "iterations.png", "masks.npz", "tracks.json"}
    assert {path.name for path in folder.iterdir()} == videos | others
    assert "7 frames, " in capsys.readouterr().out
    for name in VIEWS:
        frames = list(VideoReader(folder / f"{name}.mp4").frames())
        assert [round(frame.time, 3) for frame in frames] == [n / 10 for n in range(7)]
    tracks = json.loads((folder / "tracks.json").read_text())
    with np.load(folder / "masks.npz") as arrays:
        slots = arrays["segmentation"]
        assert slots.shape == (7, 40, 48)
        assert arrays["attn"].shape[:2] == (7, 7)
        np.testing.assert_allclose(arrays["attn"].astype(np.float32).sum(1), 1, atol=5e-3)
        assert arrays["slots"].shape[:2] == (7, 7)
        assert arrays["frame"].tolist() == list(range(7))
    for number, frame in enumerate(tracks["frames"]):
        assert sum(slot["area"] for slot in frame["slots"]) == 40 * 48
        for slot in frame["slots"]:
            if slot["area"]:
                mask = rle.decode(rle.from_text(slot["segmentation"]))
                np.testing.assert_array_equal(mask, slots[number] == slot["slot"])


def test_windows_and_kinds_of_input_do_not_matter(
    weights: Path, clip: Path, tmp_path: Path
) -> None:
    frames = np.stack(list(VideoReader(clip)))
    np.save(tmp_path / "bytes.npy", frames)
    np.save(tmp_path / "floats.npy", frames.transpose(0, 3, 1, 2) / np.float32(255))
    inputs = [tmp_path / "bytes.npy", tmp_path / "floats.npy"]
    out = tmp_path / "out"
    window = ["MODEL.MASK_FORMER.TEST.WINDOW_SIZE", 3]
    assert show(weights, out, "--formats", "--input", clip) == 0
    assert show(weights, out, "--formats", "--input", *inputs, *window) == 0
    loaded = [np.load(out / name / "masks.npz") for name in ("clip", "bytes", "floats")]
    for name in ("segmentation", "attn", "slots"):
        for other in loaded[1:]:
            np.testing.assert_allclose(
                other[name].astype(float), loaded[0][name].astype(float), atol=1e-3
            )
    assert not list(out.rglob("*.mp4"))
    assert (out / "clip" / "tracks.json").is_file()


def test_a_picture_is_shown_without_videos(weights: Path, tmp_path: Path) -> None:
    frames, _ = moving_squares(1, 33)
    Image.fromarray(frames[0].permute(1, 2, 0).numpy()).save(tmp_path / "one.png")
    assert show(weights, tmp_path / "out", "--input", tmp_path / "one.png") == 0
    names = {path.name for path in (tmp_path / "out" / "one").iterdir()}
    assert names == {"grid.png", "iterations.png", "masks.npz", "tracks.json"}


def test_one_bad_input_does_not_stop_the_others(
    weights: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    inputs = [tmp_path / "bad.npy", clip]
    assert show(weights, tmp_path / "out", "--formats", "gif", "--input", *inputs) == 1
    told = capsys.readouterr()
    assert "bad.npy is no array that can be read" in told.err
    assert "1 of 2 inputs shown" in told.out
    assert (tmp_path / "out" / "clip" / "panels.gif").is_file()
    assert not (tmp_path / "out" / "clip" / "panels.mp4").exists()
    assert not (tmp_path / "out" / "bad").exists()


def test_a_model_without_slots_is_refused(clip: Path, tmp_path: Path) -> None:
    config = PROJECT.parent / "persistence" / "same.yaml"
    words = ["show", "--config-file", config, "--input", clip, "--output", tmp_path / "out"]
    with pytest.raises(ConfigError, match="'ObjectPersistence', which has no slots to show"):
        main(list(map(str, words)))


def test_attention_by_iteration_ends_with_that_of_the_model(weights: Path) -> None:
    model = build_model(load_config(CONFIG, CPU))
    assert isinstance(model, SlotBERT)
    model.eval()
    frames, _ = moving_squares(1)
    maps = attention_by_iteration(model.perception, frames)
    assert maps.shape[:2] == (model.perception.eval_iters, 7)
    torch.testing.assert_close(maps[-1], model.infer(frames[None])["attn"][0, 0])
    assert (maps[0] - maps[-1]).abs().max() > 1e-4


def test_demo_draws_every_slot_in_its_colour(
    weights: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config-file", CONFIG, "--weights", weights, "--output", tmp_path]
    words += ["--explain", "--explain-tracks", 1]
    assert tool_module("demo").main([*map(str, [*words, "--input", clip]), *CPU]) == 0
    results = json.loads((tmp_path / "clip" / "results.json").read_text())
    assert results
    assert {record["category_id"] for record in results} == {1}
    assert all(record["score"] >= 0.5 for record in results)
    assert len(list(VideoReader(tmp_path / "clip" / "overlay.mp4"))) == 7
    assert list((tmp_path / "clip" / "explain").glob("attention_*.mp4"))
