"""Planning of chained runs, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vidseg.engine.chain import plan_stages
from vidseg.errors import ConfigError


@pytest.fixture
def last(tmp_path: Path) -> Path:
    for name, source in (("a", ""), ("b", "a.yaml"), ("c", "b.yaml")):
        (tmp_path / f"{name}.yaml").write_text(
            f"OUTPUT_DIR: output/{name}\nSOLVER:\n  INIT_FROM: '{source}'\n  MAX_ITER: 10\n"
        )
    return tmp_path / "c.yaml"


def test_stages_in_the_order_of_training(last: Path) -> None:
    stages = plan_stages(str(last))
    assert [stage.name for stage in stages] == ["a", "b", "c"]
    assert [str(stage.output_dir) for stage in stages] == ["output/a", "output/b", "output/c"]


def test_output_dir_holds_the_earlier_stages(last: Path) -> None:
    stages = plan_stages(str(last), ["OUTPUT_DIR", "x"])
    assert [str(stage.output_dir) for stage in stages] == ["x/a", "x/b", "x"]


def test_overrides_go_to_every_stage_and_addressed_ones_win(last: Path) -> None:
    words = ["b:SOLVER.MAX_ITER", "3", "SOLVER.MAX_ITER", "7", "SEED", "5"]
    stages = plan_stages(str(last), words)
    assert [stage.cfg.SOLVER.MAX_ITER for stage in stages] == [7, 3, 7]
    assert [stage.cfg.SEED for stage in stages] == [5, 5, 5]


def test_weights_end_the_chain(last: Path) -> None:
    assert [s.name for s in plan_stages(str(last), ["MODEL.WEIGHTS", "w.pth"])] == ["c"]
    assert [s.name for s in plan_stages(str(last), ["b:MODEL.WEIGHTS", "w.pth"])] == ["b", "c"]
    assert [s.name for s in plan_stages(str(last), ["b:SOLVER.INIT_FROM", ""])] == ["b", "c"]


def test_architecture_is_the_last_stage_s(last: Path) -> None:
    stages = plan_stages(str(last), ["MODEL.META_ARCHITECTURE", "Mine"])
    assert [stage.cfg.MODEL.META_ARCHITECTURE == "Mine" for stage in stages] == [False, False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SOLVER.MAX_ITER"], "got 1 words: the last one, 'SOLVER.MAX_ITER', has no partner"),
        (["bb:SEED", "1"], "no stage 'bb'; nearest: b"),
        (["SOLVER.MAX_ITR", "1"], "MAX_ITER"),
        (["TEST.PATIENCE", "2"], "needs TEST.BEST_METRIC"),
        (["TEST.BEST_METRIC", "segm/AP"], "needs a TEST.EVAL_PERIOD"),
        (["a:OUTPUT_DIR", "x", "b:OUTPUT_DIR", "x"], "used by a and by b"),
    ],
)
def test_mistakes(last: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_stages(str(last), words)


def test_circle_is_refused(last: Path) -> None:
    (last.parent / "a.yaml").write_text("SOLVER: {INIT_FROM: c.yaml}")
    with pytest.raises(ConfigError, match="leads back to itself"):
        plan_stages(str(last))


def test_absent_config_is_named(last: Path) -> None:
    (last.parent / "a.yaml").unlink()
    with pytest.raises(ConfigError, match=r"SOLVER.INIT_FROM of b names .*a.yaml"):
        plan_stages(str(last))


def test_planning_imports_no_torch(last: Path) -> None:
    code = (
        "import sys; from vidseg.engine.chain import plan_stages; "
        f"plan_stages({str(last)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.MAX_ITER", "-1"),
        ("SOLVER.IMS_PER_BATCH", "0"),
        ("SOLVER.ACCUMULATION_STEPS", "0"),
        ("INPUT.SAMPLING_FRAME_NUM", "0"),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "0"),
        ("MODEL.MASK_FORMER.TEST.WINDOW_SIZE", "0"),
    ],
)
def test_numbers_without_meaning_are_refused_in_every_stage(
    last: Path, key: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{key} of b is {value}; set . or more"):
        plan_stages(str(last), [f"b:{key}", value])
