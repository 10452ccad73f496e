"""Whole runs of the toy model: finished, continued, stopped, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.support import (
    assert_equal,
    losses,
    make_dataset,
    run,
    stop_at,
    weights,
)
from vidseg.checkpoint.files import read_checkpoint
from vidseg.engine.hooks import CheckpointHook
from vidseg.engine.run_dir import RunDirectory, locked
from vidseg.errors import ConfigError, DataError, UserError

pytestmark = pytest.mark.usefixtures("fresh_plugins")


def test_run_directory_is_complete(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(config, "OUTPUT_DIR", output) == 0
    names = {path.name for path in output.iterdir()}
    expected = {"config.yaml", "log.txt", "metrics.jsonl", "last_checkpoint", "model_final.pth"}
    assert expected <= names
    assert {"checkpoint_0000003.pth", "checkpoint_0000006.pth", "checkpoint_0000008.pth"} <= names
    log = (output / "log.txt").read_text()
    for text in ("torch 2", "parameters", "trainable", "4 videos, 1 classes: square", "eta: "):
        assert text in log
    assert "iter: 8/8" in log
    assert (output / "inference" / "data_instances" / "metrics.json").is_file()


@pytest.mark.parametrize(
    "stop", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("extra", [(), ("SOLVER.EMA.ENABLED", "True"), ("TEST.EVAL_PERIOD", "2")])
def test_stopped_run_continues_to_the_bit(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    extra: tuple[str, ...],
) -> None:
    assert run(config, "OUTPUT_DIR", tmp_path / "whole", *extra) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        assert run(config, "OUTPUT_DIR", tmp_path / "parts", *extra) == 128 + signal.SIGTERM
    assert not (tmp_path / "parts" / "model_final.pth").exists()
    assert run(config, "OUTPUT_DIR", tmp_path / "parts", *extra) == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_killed_run_continues_from_the_last_checkpoint(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(config, "OUTPUT_DIR", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointHook, "after_train", lambda self, trainer: None)
        stop_at(patch, 5)
        run(config, "OUTPUT_DIR", tmp_path / "parts")
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 5, "total_lo')
    assert run(config, "OUTPUT_DIR", tmp_path / "parts", resume=True) == 0
    assert "resuming from" in (tmp_path / "parts" / "log.txt").read_text()
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_interrupt_exits_with_130(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2, signal.SIGINT)
    assert run(config, "OUTPUT_DIR", tmp_path / "out") == 130
    assert (tmp_path / "out" / "checkpoint_0000002.pth").is_file()
    assert "the same command goes on" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.parametrize("resume", [False, True])
def test_finished_run_has_nothing_to_do(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], resume: bool
) -> None:
    run(config)
    before = weights(tmp_path / "output" / "toy")
    capsys.readouterr()
    assert run(config, resume=resume) == 0
    shown = capsys.readouterr().out
    assert "nothing to do" in shown
    assert "AP50" in shown
    assert "overlay_1.mp4" in shown
    assert_equal(before, weights(tmp_path / "output" / "toy"))


def test_other_config_is_refused_without_resume(config: Path) -> None:
    run(config, "SOLVER.MAX_ITER", 4)
    with pytest.raises(UserError, match=r"SOLVER.BASE_LR: 0.01 -> 0.02.*--resume.*OUTPUT_DIR"):
        run(config, "SOLVER.MAX_ITER", 4, "SOLVER.BASE_LR", 0.02)


def test_harmless_changes_are_not_another_config(config: Path) -> None:
    run(config)
    assert run(config, "SOLVER.LOG_PERIOD", 1, "DATALOADER.NUM_WORKERS", 1) == 0


def test_finished_run_can_be_extended(config: Path, tmp_path: Path) -> None:
    run(config, "SOLVER.MAX_ITER", 4)
    assert run(config, "SOLVER.MAX_ITER", 8, resume=True) == 0
    content = read_checkpoint(tmp_path / "output" / "toy" / "model_final.pth")
    assert content["iteration"] == 8


def test_new_test_set_is_evaluated_only(config: Path, tmp_path: Path) -> None:
    run(config)
    other = make_dataset(tmp_path / "other", num_videos=1)
    assert run(config, "DATASETS.TEST", f"('{other}',)") == 0
    stored = json.loads((tmp_path / "output" / "toy" / "final_metrics.json").read_text())
    assert str(other) in stored["metrics"]


def test_damaged_last_checkpoint(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(config, "OUTPUT_DIR", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        run(config, "OUTPUT_DIR", tmp_path / "parts")
    (tmp_path / "parts" / "checkpoint_0000005.pth").write_bytes(b"rubbish")
    assert run(config, "OUTPUT_DIR", tmp_path / "parts") == 0
    assert "checkpoint_0000005.pth is damaged" in (tmp_path / "parts" / "log.txt").read_text()
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_two_runs_in_one_directory(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "output" / "toy"
    code = (
        "import pathlib, sys; from vidseg.engine.run_dir import locked\n"
        f"with locked(pathlib.Path({str(output)!r})): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid} is already"):
        run(config)
    holder.communicate()
    assert run(config) == 0


def test_killed_run_lets_go_although_its_children_live(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, time; from vidseg.engine.run_dir import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r})):\n"
        "    if os.fork() == 0: time.sleep(5); os._exit(0)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    with locked(tmp_path):
        pass


def test_foreign_directory_is_mentioned(config: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run(config, "OUTPUT_DIR", tmp_path / "out", "SOLVER.MAX_ITER", 1)
    assert "exists already" in (tmp_path / "out" / "log.txt").read_text()


def test_eval_only(config: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no weights"):
        run(config, eval_only=True)
    run(config)
    assert run(config, eval_only=True) == 0
    final = tmp_path / "output" / "toy" / "model_final.pth"
    other = tmp_path / "elsewhere"
    assert run(config, "MODEL.WEIGHTS", final, "OUTPUT_DIR", other, eval_only=True) == 0
    assert (other / "inference" / "data_instances" / "results.json").is_file()
    # Whatever the evaluator itself logs: the command ends with its figures.
    logged = (other / "log.txt").read_text().rpartition("results on ")[2]
    head, _, row = (line.split() for line in logged.splitlines()[1:4])
    assert head[1::2] == ["run", "AP", "AP50", "AP75", "AR1", "AR10"]
    assert row[1] == "toy"


def test_eval_only_needs_all_parts(config: Path, tmp_path: Path) -> None:
    run(config)
    state = read_checkpoint(tmp_path / "output" / "toy" / "model_final.pth")["model"]
    partial = tmp_path / "partial.pth"
    torch.save({k: v for k, v in state.items() if not k.startswith("head.")}, partial)
    with pytest.raises(UserError, match=r"partial\.pth has no weights for head of ToySegmenter"):
        run(config, "MODEL.WEIGHTS", partial, eval_only=True)


def test_eval_only_needs_enough_classes(config: Path, tmp_path: Path) -> None:
    run(config)
    dataset = tmp_path / "data" / "instances.json"
    content = json.loads(dataset.read_text())
    content["categories"].append({"id": 2, "name": "circle"})
    other = dataset.with_name("more.json")
    other.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"has 2 classes, but the model has 1; set MODEL\.SEM_SEG"):
        run(config, "DATASETS.TEST", f"('{other}',)", eval_only=True)


def test_eval_only_without_data_set(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST is empty"):
        run(config, "DATASETS.TEST", "()", eval_only=True)


def test_expected_results(config: Path) -> None:
    expected = ["TEST.EXPECTED_RESULTS", "[['segm', 'AP', 99.0, 0.5]]"]
    with pytest.raises(UserError, match=r"segm/AP on .* expected 99.0"):
        run(config, *expected)


def test_best_weights_and_patience(config: Path, tmp_path: Path) -> None:
    options = ("TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC", "segm/AR1", "TEST.PATIENCE", 2)
    assert run(config, *options) == 0
    output = tmp_path / "output" / "toy"
    # The toy's predictions never change, so the second and the third evaluation are no better.
    assert read_checkpoint(output / "model_final.pth")["iteration"] == 3
    assert [path.name for path in output.glob("model_best_*")] == ["model_best_0000001.pth"]
    assert run(config, *options) == 0


def test_last_iteration_is_evaluated_once(config: Path, tmp_path: Path) -> None:
    run(config, "TEST.EVAL_PERIOD", 5, "TEST.BEST_METRIC", "segm/AR1", "TEST.KEEP_BEST", 2)
    output = tmp_path / "output" / "toy"
    names = sorted(path.name for path in output.glob("model_best_*"))
    assert names == ["model_best_0000005.pth", "model_best_0000008.pth"]
    assert (output / "log.txt").read_text().count("4 videos in") == 2
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "segm/AR1" in line] == [5, 8]


def test_stopped_evaluation_is_repeated(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output" / "toy"
    from vidseg.engine import setup

    original = setup.evaluate_model

    def stopped(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(setup, "evaluate_model", stopped)
        assert run(config) == 128 + signal.SIGTERM
    assert (output / "model_final.pth").is_file()
    assert not (output / "final_metrics.json").exists()
    assert run(config) == 0
    assert (output / "final_metrics.json").is_file()


def test_more_classes_than_the_model(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "data" / "instances.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 2, "name": "circle"})
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="NUM_CLASSES to 2"):
        run(config, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1)


@pytest.mark.parametrize("eval_only", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "notes.txt/out"])
def test_output_dir_that_cannot_be_made(
    config: Path, tmp_path: Path, name: str, eval_only: bool
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    weights = ["MODEL.WEIGHTS", tmp_path / "absent.pth"] if eval_only else []
    with pytest.raises(UserError, match=r"OUTPUT_DIR .*notes\.txt.* cannot be made"):
        run(config, "OUTPUT_DIR", tmp_path / name, *weights, eval_only=eval_only)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_architecture_that_is_not_set(config: Path) -> None:
    config.write_text(config.read_text().replace("  META_ARCHITECTURE: ToySegmenter\n", ""))
    with pytest.raises(ConfigError, match=r"MODEL\.META_ARCHITECTURE is not set.*ToySegmenter"):
        run(config)


def test_config_is_stored_resolved(config: Path, tmp_path: Path) -> None:
    run(config, "SOLVER.MAX_ITER", 1)
    from vidseg.config import load_config

    stored = load_config(tmp_path / "output" / "toy" / "config.yaml")
    assert stored.SOLVER.MAX_ITER == 1
    assert not RunDirectory(tmp_path / "output" / "toy").state(stored).differences
