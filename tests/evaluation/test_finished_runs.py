"""Reading run directories: what is there, what is not finished, what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidseg.errors import DataError
from vidseg.evaluation.finished_runs import read_run


def make_run(folder: Path, metrics: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("SEED: 3\nMODEL:\n  HEAD:\n    NAME: x\n")
    if metrics is not None:
        (folder / "final_metrics.json").write_text(json.dumps(metrics))
    return folder


def test_config_and_metrics(tmp_path: Path) -> None:
    flat = {"a/Acc": 50, "a/H": None, "word": "x"}
    run = read_run(make_run(tmp_path, {"iteration": 5, "metrics": {"test": flat}}))
    assert run.folder == tmp_path
    assert run.config == {"SEED": 3, "MODEL.HEAD.NAME": "x"}
    assert run.metrics == {"test": {"a/Acc": 50.0}}


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    assert read_run(make_run(tmp_path)).metrics == {}


@pytest.mark.parametrize("metrics", [[], {"iteration": 1}, {"metrics": {"test": 1}}])
def test_files_without_metrics(metrics: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"final_metrics\.json holds no metrics"):
        read_run(make_run(tmp_path, metrics))


def test_folders_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no run: it has no config\.yaml"):
        read_run(tmp_path)
    for content in ("[1]", ""):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(DataError, match="is no config of a run"):
            read_run(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match="cannot be read"):
        read_run(tmp_path)
