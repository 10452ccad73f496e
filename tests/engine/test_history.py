"""The history of a run: one file and one picture, however often the run was stopped."""

from __future__ import annotations

import errno
import json
import logging
import math
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.engine.support import make_dataset, run, stop_at, write_config
from vidseg.engine import curves
from vidseg.engine.curves import headline_metrics, save_curves
from vidseg.engine.history import CURVES, HISTORY, read_history, write_history

pytestmark = pytest.mark.usefixtures("drawn_curves")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, make_dataset(tmp_path / "data", num_videos=2))


def _history(directory: Path) -> dict[str, list[dict[str, Any]]]:
    content = json.loads((directory / HISTORY).read_text())
    for row in content["training"]:
        for name in ("time", "data_time", "max_mem"):
            assert row.pop(name) >= 0
    return content


def test_history_of_a_run(config: Path, tmp_path: Path) -> None:
    run(config, "TEST.EVAL_PERIOD", 4)
    history = _history(tmp_path / "output" / "toy")
    assert [row["iteration"] for row in history["training"]] == [1, 2, 4, 6, 8]
    assert [row["iteration"] for row in history["evaluation"]] == [4, 8]
    assert set(history["training"][-1]) == {
        *("iteration", "lr", "grad_norm", "total_loss", "loss_toy", "loss_toy_0")
    }
    assert "segm/AP" in history["evaluation"][-1]
    with Image.open(tmp_path / "output" / "toy" / CURVES) as picture:
        assert picture.width > picture.height > 200


def test_a_stopped_run_has_the_history_of_an_unbroken_one(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(config, "OUTPUT_DIR", whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        assert run(config, "OUTPUT_DIR", broken) == 128 + signal.SIGTERM
    assert [row["iteration"] for row in _history(broken)["training"]] == [1, 2, 4]
    assert (broken / CURVES).is_file()
    run(config, "OUTPUT_DIR", broken)
    assert _history(broken) == _history(whole)
    # Evaluated after its training, so no line of metrics.jsonl tells it.
    assert [row["iteration"] for row in _history(whole)["evaluation"]] == [8]


def test_history_is_made_up_for_and_not_made_twice(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "output" / "toy"
    run(config)
    before = _history(output)
    made = (output / CURVES).stat().st_mtime_ns
    run(config)
    assert (output / CURVES).stat().st_mtime_ns == made
    (output / HISTORY).unlink()
    run(config)
    assert _history(output) == before


def test_a_run_that_diverges_leaves_its_history(config: Path, tmp_path: Path) -> None:
    from vidseg.engine.batches import TrainingError

    with pytest.raises(TrainingError, match="not finite"):
        run(config, "SOLVER.BASE_LR", 1e30, "SOLVER.MAX_NAN_STEPS", 2, "SOLVER.WARMUP_ITERS", 0)
    assert _history(tmp_path / "output" / "toy")["training"]


def test_final_metrics_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    lines = [
        {"iteration": 2, "lr": 0.1, "total_loss": 1.0},
        {"iteration": 4, "lr": 0.1, "total_loss": 1.0},
        {"iteration": 4, "segm/AP": 1.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"iteration": 6, "lr"')
    assert read_history(tmp_path) == lines
    assert read_history(tmp_path, 4, {"a": {"segm/AP": 2.0}, "b": {"segm/AP": math.nan}}) == [
        *lines[:1],
        *lines[1:2],
        {"iteration": 4, "a/segm/AP": 2.0, "b/segm/AP": None},
    ]


def test_no_history_without_lines(tmp_path: Path) -> None:
    write_history(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1, "lr": 0.1}\n')
    monkeypatch.setattr("vidseg.engine.history.write_atomically", full)
    with caplog.at_level(logging.ERROR):
        write_history(tmp_path)
    assert "could not be written ([Errno 28] No space left" in caplog.text


def test_curves_show_headline_metrics_of_every_data_set() -> None:
    rows = [{"iteration": 1, "a/segm/AP": 1.0, "a/segm/AR": 0.1, "b/segm/AP": 2.0}]
    metrics = headline_metrics(rows, ("AP", "segm/AP", "AP75"))
    assert metrics == {"AP": ["a/segm/AP", "b/segm/AP"]}
    assert list(headline_metrics(rows, ("AP50",))) == ["a/segm/AP", "a/segm/AR", "b/segm/AP"]
    later = [*rows, {**rows[0], "iteration": 2}]
    ((title, lines),) = curves._panels([], later, metrics)
    assert title == "AP"
    assert [(label, points) for label, _, points in lines] == [
        ("a/segm/AP", [(1, 1.0), (2, 1.0)]),
        ("b/segm/AP", [(1, 2.0), (2, 2.0)]),
    ]
    assert not curves._panels([], rows, metrics)  # one point is no curve


def test_curves_of_numbers_that_are_none(tmp_path: Path) -> None:
    training = [
        {"iteration": i, "lr": 0.0, "total_loss": None, "grad_norm": 1e6**i} for i in (1, 2)
    ]
    save_curves(tmp_path / "curves.png", training, [{"iteration": 2, "segm/AP": None}])
    assert [title for title, _ in curves._panels(training, [], {})] == [
        "gradient norm",
        "learning rate",
    ]
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 300


def test_no_data_set_is_left_out_where_there_are_many_metrics() -> None:
    ends = [f"m{number}" for number in range(9)]
    row = {f"{name}/x/{end}": 1.0 for name in "abc" for end in ends}
    metrics = headline_metrics([{"iteration": 1, **row}], ends)
    assert len(metrics) == 6
    assert metrics["m5"] == ["a/x/m5", "b/x/m5", "c/x/m5"]
