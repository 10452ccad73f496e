"""Runs on features instead of frames: what they give, say and refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from vidseg.config import CfgNode, load_config
from vidseg.data import DatasetCatalog
from vidseg.engine.batches import describe_sample
from vidseg.engine.chain import plan_stages
from vidseg.engine.evaluate import inference_dir
from vidseg.engine.fingerprint import take_fingerprint
from vidseg.engine.report import describe_data
from vidseg.engine.run_dir import METRICS_NAME
from vidseg.engine.setup import run_stages
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_model

PLUGIN = str(Path(__file__).with_name("toy_sequences.py"))

CONFIG = """
MODEL: {META_ARCHITECTURE: ToySequences, DEVICE: cpu}
DATASETS:
  TRAIN: ['%SET%']
  TEST: ['%SET%']
  DATASET_TYPE: [sequence]
  DATASET_TYPE_TEST: [sequence]
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.1, MAX_ITER: 6, STEPS: [5], WARMUP_ITERS: 0, LOG_PERIOD: 2}
TEST: {EVALUATOR: toy_sequences}
WRITERS: [jsonl]
OUTPUT_DIR: "%OUT%"
"""

pytestmark = pytest.mark.usefixtures("fresh_plugins")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for topic in ("news", "sports"):
        for number in range(3):
            path = tmp_path / "set" / topic / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rng.normal(1, 1, (8 + number, 3)).astype(np.float32))
    text = CONFIG.replace("%SET%", str(tmp_path / "set")).replace("%OUT%", str(tmp_path / "out"))
    (tmp_path / "toy.yaml").write_text(text)
    return tmp_path


def run(folder: Path, *overrides: str, **options: object) -> int:
    return run_stages(
        plan_stages(str(folder / "toy.yaml"), list(overrides), [PLUGIN]),
        plugins=[PLUGIN],
        **options,
    )


def config(folder: Path, *overrides: str) -> CfgNode:
    return load_config(folder / "toy.yaml", list(overrides), [PLUGIN])


def metrics(folder: Path) -> dict[str, float]:
    (found,) = json.loads((folder / "out" / METRICS_NAME).read_text())["metrics"].values()
    return dict(found)


def test_run_on_features(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    found = metrics(folder)
    assert found["toy/documents"] == 6
    assert found["toy/error"] < 2.2  # 2 untrained, 1 at best, and noise
    told = capsys.readouterr().out
    set_name = folder / "set"
    assert f"train {set_name}: 6 documents, 54 frames of 3 features, 2 topics: news, sports" in told
    assert "training on 6 of 6 documents" in told
    assert "6 documents in" in told
    assert "frames per second" in told
    assert "overlay" not in told
    assert not list((folder / "out").glob("inference/*/*.mp4"))
    assert (folder / "out" / "inference" / f"{folder.name}_set").is_dir()
    model = folder / "out" / "model_final.pth"
    changed = model.stat().st_mtime_ns
    assert run(folder, resume=True) == 0
    assert "is finished at iteration 6 of 6, nothing to do" in capsys.readouterr().out
    assert model.stat().st_mtime_ns == changed


def test_epochs_are_passes_over_the_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_EPOCHS", "3", "SOLVER.EPOCH_STEPS", "[1]")
    assert run(folder, *keys) == 0
    assert "iterations per epoch: 2; MAX_ITER 6, STEPS (2,)" in capsys.readouterr().out
    lines = (folder / "out" / "metrics.jsonl").read_text().splitlines()
    rates = {row["iteration"]: row["lr"] for row in map(json.loads, lines) if "lr" in row}
    assert rates == pytest.approx({1: 0.1, 2: 0.1, 4: 0.01, 6: 0.01})
    stored = load_config(folder / "out" / "config.yaml", plugins=[PLUGIN]).SOLVER
    assert (stored.MAX_ITER, stored.STEPS, stored.MAX_EPOCHS) == (6, (2,), 0)
    assert run(folder, *keys) == 0
    assert "is finished at iteration 6 of 6, nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"SOLVER.MAX_EPOCHS of toy is -1; set 0 or more"):
        run(folder, "SOLVER.MAX_EPOCHS", "-1")
    with pytest.raises(DataError, match=r"^toy: DATASETS: no such file or folder"):
        run(folder, *keys, "DATASETS.TRAIN", "['./nowhere']")


def test_damaged_document_counts_as_such(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder)
    spoilt = np.zeros((8, 3), dtype=np.float32)
    spoilt[5] = np.nan
    np.save(folder / "set" / "news" / "0.npy", spoilt)
    with pytest.raises(DataError, match=r"^damaged documents count as documents .*: 1 of "):
        run(folder, eval_only=True)
    told = capsys.readouterr().out
    assert "document news/0 is left out: " in told
    assert "0.npy holds NaN or infinity, first in frame 5 (1 of the 8 frames read)" in told
    assert "1 damaged documents count as documents without predictions" in told


def test_width_must_be_the_models(folder: Path) -> None:
    message = r"set has 3 features per frame, but the model takes 4; set MODEL.TOY_WIDTH to 3"
    with pytest.raises(DataError, match=message):
        run(folder, "MODEL.TOY_WIDTH", "4")
    assert not (folder / "out" / "model_final.pth").exists()
    with pytest.raises(DataError, match=message):
        describe_data(config(folder, "MODEL.TOY_WIDTH", "4"))


def test_mapper_must_be_for_features(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"DATASETS\.DATASET_TYPE: the mapper 'video_instance'"):
        run(folder, "DATASETS.DATASET_TYPE", "['video_instance']")


def test_features_need_an_evaluator(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no evaluator, .*or an evaluator in TEST\.EVALUATOR"):
        run(folder, "TEST.EVALUATOR", "")


def test_data_set_of_a_plugin_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "set").rename(folder / "toy_documents")
    monkeypatch.setenv("VIDSEG_DATASETS", str(folder))
    assert run(folder, "DATASETS.TRAIN", "['toy_documents']", "DATASETS.TEST", "[]") == 0


def test_predictions_depend_on_the_files(folder: Path) -> None:
    cfg = config(folder)
    name, model = cfg.DATASETS.TEST[0], build_model(cfg)
    first = take_fingerprint(cfg, model, name)
    assert take_fingerprint(cfg, model, name) == first
    path = folder / "set" / "news" / "1.npy"
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    changed = take_fingerprint(cfg, model, name)
    assert [key for key in first if first[key] != changed[key]] == ["the data set"]
    cfg.TEST.EVALUATOR = "another"
    other = take_fingerprint(cfg, model, name)
    assert [key for key in other if other[key] != changed[key]] == ["the evaluator"]


def test_folder_names_its_results(folder: Path) -> None:
    assert inference_dir("out", "/data/my/speech/") == Path("out/inference/my_speech")
    assert inference_dir("out", "speech") == Path("out/inference/speech")


def test_sample_is_described(folder: Path) -> None:
    sample = {
        "features": None,
        "video_id": "a",
        "file_names": ["a.npy"],
        "frame_indices": range(3, 9),
    }
    assert describe_sample(sample) == "document a, a.npy, frames 3 to 8"
    generated = {"video_id": "g7", "file_names": [], "frame_indices": range(16)}
    assert describe_sample(generated) == "video g7, frames 0 to 15"
    assert DatasetCatalog.metadata(str(folder / "set")).item == "document"
