"""The predictor of feature sequences: sources, checks, and the demo on top of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg import SequencePredictor
from vidseg.config import load_config
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.modeling import build_model

PLUGIN = str(Path(__file__).parent / "engine" / "toy_sequences.py")
DEMO = Path(__file__).parents[1] / "tools" / "demo.py"
CONFIG = """
MODEL: {META_ARCHITECTURE: ToySequences, DEVICE: cpu}
DATASETS: {DATASET_TYPE: [sequence], DATASET_TYPE_TEST: [sequence]}
"""

pytestmark = pytest.mark.usefixtures("fresh_plugins")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(CONFIG)
    torch.save(build_model(load_config(path, plugins=[PLUGIN])).state_dict(), tmp_path / "w.pth")
    return path


@pytest.fixture
def predictor(config: Path) -> SequencePredictor:
    return SequencePredictor.from_config(config, config.with_name("w.pth"), plugins=[PLUGIN])


def features(path: Path, num_frames: int = 7, width: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(num_frames, width))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return values.astype(np.float32)


def test_a_file_and_what_is_in_it_are_the_same(
    predictor: SequencePredictor, tmp_path: Path
) -> None:
    values = features(tmp_path / "a.npy")
    want = torch.from_numpy(values).square().mean(1)  # the mean is 0
    for source in (tmp_path / "a.npy", values, torch.from_numpy(values), values.astype(float)):
        torch.testing.assert_close(predictor.predict(source), want)
    sample = predictor.read(str(tmp_path / "a.npy"))
    assert (sample["video_id"], sample["length"]) == ("a", 7)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 5)), r"^the array has 5 features per frame, the model takes 3$"),
        (np.zeros((3, 5)), r"takes 3; it seems to hold \(features, frames\): transpose it"),
        (np.full((4, 3), np.nan), r"^the array holds NaN or infinity, first in frame 0 \(4 of"),
        (np.full((4, 3), 1e300), r"^the array holds NaN or infinity"),
        (np.zeros(3), r"^features must be numbers \(frames, features\), got float64 \(3,\)"),
        ([["a"]], r"^features must be numbers"),
        ("nowhere.npy", r"^the source: no data set is called 'nowhere.npy'"),
    ],
)
def test_unsuitable_sources(predictor: SequencePredictor, source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        predictor.predict(source)


def test_one_sequence_at_a_time(predictor: SequencePredictor, tmp_path: Path) -> None:
    for name in "ab":
        features(tmp_path / "set" / f"{name}.npy")
    with pytest.raises(DataError, match=r"set holds 2 sequences; give one of them"):
        predictor.predict(tmp_path / "set")


def test_what_the_model_does_not_offer(
    predictor: SequencePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"classes of ToySequences are those of its training"):
        predictor.set_vocabulary(["a"])
    monkeypatch.delattr(type(predictor.model), "write_prediction")
    with pytest.raises(UserError, match=r"ToySequences does not show its predictions"):
        predictor.check_writes()


def test_models_of_frames_are_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"'video_instance'\); use VideoPredictor$"):
        SequencePredictor.from_config(
            config, None, ["DATASETS.DATASET_TYPE_TEST", "['video_instance']"], plugins=[PLUGIN]
        )


@pytest.fixture
def demo(config: Path) -> Callable[..., tuple[int, Path]]:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words: Any, config: Path = config) -> tuple[int, Path]:
        output = config.parent / "shown"
        known = ["--config-file", config, "--plugin", PLUGIN, "--output", output]
        known += ["--weights", config.with_name("w.pth"), "--input"]
        return module.main([str(word) for word in (*known, *words)]), output

    return run


def test_demo_shows_files_folders_and_goes_on_after_a_failure(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features(tmp_path / "a.npy")
    features(tmp_path / "set" / "one" / "a.npy", 4)
    features(tmp_path / "set" / "two" / "a.npy", 5)
    features(tmp_path / "narrow.npy", width=2)
    (tmp_path / "notes.txt").write_text("")
    inputs = [tmp_path / name for name in ("narrow.npy", "notes.txt", "a.npy", "set")]
    code, output = demo(*inputs, "DATALOADER.NUM_WORKERS", "0")
    told = capsys.readouterr()
    assert code == 1
    assert told.out.splitlines() == [
        f"a: 7 frames -> {output / 'a'}",
        f"one/a: 4 frames -> {output / 'one_a'}",
        f"two/a: 5 frames -> {output / 'two_a'}",
    ]
    first, second = told.err.splitlines()
    assert "notes.txt is neither a feature file" in first
    assert "narrow.npy has 2 features per frame, the model takes 3" in second
    assert (output / "two_a" / "error.txt").is_file()
    assert demo(tmp_path / "a.npy", "--frame-rate", "2.5")[0] == 0
    assert "7 frames at 2.5 per second" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        demo(tmp_path / "a.npy", "--frame-rate", "0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.mp4"], r"a.mp4 is a video or a picture, but ToySequences takes features: files of"),
        (["a.npy", "--boxes"], r"--boxes means nothing to ToySequences, it takes features"),
        (["a.npy", "--max-frames", "3"], r"^--max-frames means nothing"),
        (["a.npy", "--classes", "gone.txt"], r"the list of classes gone.txt does not exist"),
    ],
)
def test_demo_refuses_what_has_no_meaning(
    demo: Callable[..., tuple[int, Path]], words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        demo(*words)


def test_demo_refuses_features_for_models_of_frames(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"a.npy holds features, but \w+ takes videos and pictures"):
        demo("a.npy", "DATASETS.DATASET_TYPE_TEST", "['video_instance']")
    with pytest.raises(UserError, match=r"--classes means nothing to \w+, it takes videos and"):
        demo("a.mp4", "--classes", "a", "DATASETS.DATASET_TYPE_TEST", "['video_instance']")
