"""The timeline command: from a model, from labels, and from what an evaluation left."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vidseg.config import load_config
from vidseg.errors import DataError, UserError
from vidseg.modeling import build_model
from vidseg.projects.fact_clip.__main__ import main
from vidseg.projects.fact_clip.segments_csv import read_segments
from vidseg.projects.fact_clip.timeline import MERGED, TRUTH

CLASSES = ("background", "take", "pour", "stir")
WIDTH = 6
VIDEOS = {"P01": 30, "P02": 41}
MODEL = f"""
MODEL: {{META_ARCHITECTURE: FACT, DEVICE: cpu}}
DATASETS:
  DATASET_TYPE_TEST: [action_frames]
DATALOADER: {{NUM_WORKERS: 0}}
FACT: {{ntoken: 6, block: iu, fpos: false, input_dim: {WIDTH}, n_classes: {len(CLASSES)}}}
Bi: {{hid_dim: 16, f_dim: 8, a_dim: 8, a_nhead: 2, a_ffdim: 8, a_layers: 1, f_layers: 2, f_ngp: 1}}
Bu: {{f_layers: 2}}
"""


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A set in the layout of the field."""
    rng = np.random.default_rng(0)
    for folder in ("features", "groundTruth", "splits"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for name, length in VIDEOS.items():
        features = rng.normal(size=(length, WIDTH)).astype(np.float32)
        np.save(tmp_path / "set" / "features" / f"{name}.npy", features)
        labels = [CLASSES[frame * 4 // length] for frame in range(length)]
        (tmp_path / "set" / "groundTruth" / f"{name}.txt").write_text("\n".join(labels) + "\n")
    mapping = "".join(f"{number} {name}\n" for number, name in enumerate(CLASSES))
    (tmp_path / "set" / "mapping.txt").write_text(mapping)
    path = tmp_path / "set" / "splits" / "test.split1.bundle"
    path.write_text("".join(f"{name}\n" for name in VIDEOS))
    return path


@pytest.fixture
def run_dir(tmp_path: Path, split: Path) -> Path:
    """What training leaves, with weights that have learnt nothing."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(MODEL + f"OUTPUT_DIR: {folder}\n")
    torch.manual_seed(0)
    model = build_model(load_config(config, []))
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    config.write_text(config.read_text().replace("DATASETS:", f"DATASETS:\n  TEST: ['{split}']"))
    return folder


def timeline(*words: object) -> int:
    return main(["timeline", *map(str, words)])


def test_a_run_is_drawn(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert timeline("--run", run_dir) == 0
    folder = run_dir / "timeline"
    assert f"2 videos -> {folder / 'timelines'}" in capsys.readouterr().out
    for name, length in VIDEOS.items():
        assert (folder / "timelines" / f"{name}.png").is_file()
        found = read_segments(folder / "segments" / f"{name}.csv")
        assert len(found.rows[MERGED]) == len(found.rows[TRUTH]) == length
        assert found.rows[TRUTH].tolist() == [frame * 4 // length for frame in range(length)]


def test_one_video_of_another_set(run_dir: Path, split: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--config-file", run_dir / "config.yaml", "--output", out, "--video", "P02")
    assert timeline(*words, "--input", f"{split}?frame_rate=15", "sr", 2) == 0
    assert [path.name for path in (out / "timelines").iterdir()] == ["P02.png"]
    found = read_segments(out / "segments" / "P02.csv")
    assert (found.num_frames, found.frame_rate) == (41, 15.0)


def test_a_damaged_video_is_left_out(
    run_dir: Path, split: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(split.parents[1] / "features" / "P01.npy", np.full((30, WIDTH), np.nan, np.float32))
    assert timeline("--run", run_dir) == 1
    told = capsys.readouterr()
    assert "P01.npy holds NaN" in told.err
    assert "1 videos" in told.out


def test_labels_need_no_model(split: Path, tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text(MODEL)
    out = tmp_path / "out"
    words = ("--labels", "--config-file", config, "--input", split, "--output", out)
    assert timeline(*words) == 0
    assert list(read_segments(out / "segments" / "P01.csv").rows) == [TRUTH]


def test_a_set_without_labels(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(split.parents[1] / "groundTruth")
    config = tmp_path / "a.yaml"
    config.write_text(MODEL)
    words = ("--labels", "--config-file", config, "--input", split, "--output", tmp_path / "out")
    assert timeline(*words) == 1
    assert "P01 has no labels" in capsys.readouterr().err


def test_results_are_drawn_again(run_dir: Path, tmp_path: Path) -> None:
    assert timeline("--run", run_dir) == 0
    results = run_dir / "timeline"
    assert timeline("--results", results, "--output", tmp_path / "again") == 0
    for path in (results / "segments").iterdir():
        assert (tmp_path / "again" / "segments" / path.name).read_text() == path.read_text()


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        ([], UserError, "needs one of --run DIR, --config-file F and --results DIR"),
        (["--results", "r", "--config-file", "c"], UserError, "needs one of"),
        (["--results", "r"], UserError, "--output DIR is needed"),
        (["--results", "r", "--output", "r"], UserError, "are one folder"),
        (["--run", "nowhere"], DataError, "nowhere is no run"),
        (["--results", "nowhere", "--output", "o"], DataError, "nowhere is no folder of an"),
    ],
)
def test_contradictions(words: list[str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        timeline(*words)


def test_a_video_that_is_not_there(run_dir: Path) -> None:
    with pytest.raises(UserError, match="has no video 'P03'; nearest: P0"):
        timeline("--run", run_dir, "--video", "P03")
    assert not (run_dir / "timeline").exists()
