"""What a run writes and shows: scalars, writers, tables, logs."""

from __future__ import annotations

import json
import logging
import math
import sys
from pathlib import Path

import pytest

from vidseg.config import get_cfg
from vidseg.engine.data_checks import check_test_folders
from vidseg.engine.evaluate import check_expected, flatten, inference_dir
from vidseg.engine.evaluation_hooks import find_metric
from vidseg.engine.report import log_to
from vidseg.engine.results_table import format_table
from vidseg.engine.scalars import ScalarHistory
from vidseg.engine.writers import JsonLinesWriter, TensorBoardWriter, open_all
from vidseg.errors import ConfigError, UserError
from vidseg.evaluation.base import headline_of


def test_smoothing() -> None:
    history = ScalarHistory(window=3)
    for loss, seconds in [(100.0, 9.0), (1.0, 1.0), (2.0, 2.0), (9.0, 6.0)]:
        history.put({"loss": loss, "time": seconds, "lr": loss})
    assert history.smoothed() == {"loss": 2.0, "time": 3.0, "lr": 9.0}
    assert history.latest()["loss"] == 9.0


def test_history_survives_a_checkpoint() -> None:
    history, copy = ScalarHistory(window=2), ScalarHistory(window=2)
    for value in (1.0, 2.0, 4.0):
        history.put({"loss": value})
    copy.load_state_dict(history.state_dict())
    for each in (history, copy):
        each.put({"loss": 8.0})
    assert copy.smoothed() == history.smoothed()


def test_json_lines_drop_what_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 2}\n{"iteration": 4}\n{"iteration": 6}\n{"itera')
    writer = JsonLinesWriter(tmp_path, start=4)
    writer.write(6, {"loss": 1.5, "AP": math.nan})
    writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"iteration": 2}, {"iteration": 4}, {"iteration": 6, "loss": 1.5, "AP": None}]


def test_tensorboard_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    writer = TensorBoardWriter(tmp_path, start=0)
    writer.write(1, {"loss": 1.0})
    writer.close()
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_tensorboard_is_optional(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writer = TensorBoardWriter(tmp_path, start=0)
    with caplog.at_level(logging.INFO):
        writer.write(1, {"loss": 1.0})
        writer.write(2, {"loss": 1.0})
    writer.close()
    assert caplog.text.count("not installed") == 1


def test_wandb_without_the_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"vidseg\[wandb\]"):
        open_all(["wandb"], tmp_path, 0)


def test_unknown_writer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'tensorbord' is unknown; nearest: tensorboard"):
        open_all(["jsonl", "tensorbord"], tmp_path, 0)


def test_table_shows_the_headline_metrics() -> None:
    rows = {
        "online": {"segm/AP": 41.234, "segm/AP50": 60.0, "segm/APs": 1.0},
        "offline": {"segm/AP": math.nan, "segm/AP50": 61.5},
    }
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in format_table(rows).split("\n")
    ]
    assert lines[0] == ["run", "AP", "AP50"]
    assert lines[2] == ["online", "41.23", "60.00"]
    assert lines[3] == ["offline", "-", "61.50"]


def test_table_of_other_metrics() -> None:
    assert "FG-ARI" in format_table({"": {"discovery/FG-ARI": 0.5}})


def test_an_evaluator_names_what_the_table_shows() -> None:
    rows = {"": {"codes/AP": 5.0, "retrieval/B/recall@1": 0.25, "retrieval/C/recall@1": 0.5}}
    table = format_table(rows, ("C/recall@1", "retrieval/B/recall@1", "codes/SNR"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n")]
    assert lines[0] == ["C/recall@1", "B/recall@1"]
    assert lines[2] == ["0.50", "0.25"]


def test_headline_of_a_data_set() -> None:
    assert headline_of(get_cfg(), "ytvis_2019_val")[:2] == ("AP", "AP50")


def test_flat_names() -> None:
    assert flatten({"segm": {"AP": 1.0, "name": "x"}}) == {"segm/AP": 1.0}  # type: ignore[dict-item]


def test_metric_by_its_end() -> None:
    metrics = {"a/segm/AP": 1.0, "b/segm/AP": 2.0}
    assert find_metric(metrics, "b/segm/AP") == 2.0
    assert find_metric(metrics, "segm/AP") == 1.0
    with pytest.raises(ConfigError, match=r"'segm/APP'.*segm/AP"):
        find_metric(metrics, "segm/APP")


def test_results_of_two_sets_may_not_lie_in_one_folder() -> None:
    cfg = get_cfg()
    cfg.DATASETS.TEST = ["/a/splits/test.lst", "/a/splits/test.lst?trim=1", "ovis_val"]
    check_test_folders(cfg)
    cfg.DATASETS.TEST = ["/a/splits/test.lst", "ovis_val", "/b/splits/test.lst"]
    says = r"results of /a/splits/test\.lst and /b/.* both lie in inference/splits_test; rename"
    with pytest.raises(ConfigError, match=says):
        check_test_folders(cfg)


def test_inference_directory_of_a_path(tmp_path: Path) -> None:
    assert inference_dir("out", "ovis_val") == Path("out/inference/ovis_val")
    assert inference_dir("out", "/data/my/valid.json") == Path("out/inference/my_valid")
    splits = {inference_dir("out", f"/data/my/test.lst{query}") for query in ("", "?a=/b/c&d=1")}
    assert splits == {Path("out/inference/my_test"), Path("out/inference/my_test_a-c_d-1")}
    splits = {inference_dir("out", f"/data/{split}/instances.json") for split in ("train", "valid")}
    assert len(splits) == 2


def test_expected_results() -> None:
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["segm", "AP", 40.0, 0.5]]
    check_expected(cfg, {"val": {"segm/AP": 40.4}})
    for value in (41.0, math.nan):
        with pytest.raises(UserError, match=r"segm/AP on val"):
            check_expected(cfg, {"val": {"segm/AP": value}})


def test_log_goes_to_console_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("vidseg.anything")
    with log_to(tmp_path):
        log.info("hello")
        log.warning("careful")
    log.info("not shown")
    for text in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        assert "hello" in text
        assert "WARNING: careful" in text
        assert "not shown" not in text
