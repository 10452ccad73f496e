"""Chained runs of the toy model: each stage starts from the one before."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.engine.support import (
    PLUGIN,
    assert_equal,
    run,
    stop_at,
    weights,
)
from vidseg.checkpoint.files import read_checkpoint
from vidseg.engine.chain import plan_stages
from vidseg.errors import DataError, UserError

pytestmark = pytest.mark.usefixtures("fresh_plugins")


@pytest.fixture
def chain(config: Path, tmp_path: Path) -> Path:
    dataset = tmp_path / "data" / "instances.json"
    extra = config.read_text().partition("SOLVER:")
    second = tmp_path / "second.yaml"
    second.write_text(extra[0] + "SOLVER:\n  INIT_FROM: toy.yaml" + extra[2])
    second.write_text(second.read_text().replace("output/toy", "output/second"))
    assert dataset.is_file()
    return second


def test_chain_trains_what_it_needs(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(chain, "OUTPUT_DIR", tmp_path / "x", "toy:SOLVER.MAX_ITER", 3) == 0
    assert read_checkpoint(tmp_path / "x" / "toy" / "model_final.pth")["iteration"] == 3
    assert read_checkpoint(tmp_path / "x" / "model_final.pth")["iteration"] == 8
    shown = capsys.readouterr().out
    table = shown[shown.rindex("results on") :]
    assert "toy" in table
    assert "second" in table
    log = (tmp_path / "x" / "log.txt").read_text()
    assert str(tmp_path / "x" / "toy" / "model_final.pth") in log


def test_mistakes_of_later_stages_show_before_the_first_step(chain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"second: META_ARCH 'ToySegmente' is not .*ToySegmenter"):
        run(chain, "second:MODEL.META_ARCHITECTURE", "ToySegmente")
    assert not (tmp_path / "output" / "toy").exists()


def test_chain_continues_in_the_second_stage(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(chain, "OUTPUT_DIR", tmp_path / "whole", "toy:SOLVER.MAX_ITER", 3) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        code = run(chain, "OUTPUT_DIR", tmp_path / "parts", "toy:SOLVER.MAX_ITER", 3)
        assert code == 128 + signal.SIGTERM
    assert (tmp_path / "parts" / "checkpoint_0000005.pth").is_file()
    assert run(chain, "OUTPUT_DIR", tmp_path / "parts", "toy:SOLVER.MAX_ITER", 3) == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_chain_is_not_needed_with_weights(chain: Path, tmp_path: Path) -> None:
    run(chain.parent / "toy.yaml")
    final = tmp_path / "output" / "toy" / "model_final.pth"
    stages = plan_stages(str(chain), ["MODEL.WEIGHTS", str(final)], [PLUGIN])
    assert [stage.name for stage in stages] == ["second"]


def test_stale_stage_is_refused(chain: Path, tmp_path: Path) -> None:
    run(chain, "SOLVER.MAX_ITER", 2)
    final = tmp_path / "output" / "toy" / "model_final.pth"
    final.unlink()
    with pytest.raises(UserError, match=r"second was started from .*toy.*remove"):
        run(chain, "SOLVER.MAX_ITER", 2)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DATASETS.TRAIN", "ovis_trian", r"^toy: DATASETS: .*'ovis_trian'; nearest: ovis_train"),
        ("DATASETS.TEST", "absent.json", r"^toy: DATASETS: no such file: absent\.json"),
        ("second:DATASETS.TEST", "ovis_vla", r"^second: DATASETS: .*'ovis_vla'; nearest: ovis_val"),
        ("second:DATASETS.TRAIN", "ovis_train", r"^second: .*annotations_train\.json is missing"),
    ],
)
def test_absent_data_sets_are_told_before_anything_is_built(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, message: str
) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path / "empty"))
    monkeypatch.delattr("vidseg.modeling.build_model")
    with pytest.raises(DataError, match=message):
        run(chain, key, f"('{value}',)")
    assert not (tmp_path / "output").exists()
