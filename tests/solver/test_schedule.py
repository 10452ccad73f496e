"""Learning-rate factors against recorded and hand-computed values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError
from vidseg.solver import build_scheduler
from vidseg.solver.schedule import schedule_factor

GOLDEN = Path(__file__).parents[1] / "golden" / "dvis_daq_training" / "solver"


def solver_cfg(name: str, **values: object) -> CfgNode:
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = name
    cfg.SOLVER.MAX_ITER = 100
    cfg.SOLVER.STEPS = (50, 80)
    cfg.SOLVER.WARMUP_ITERS = 10
    cfg.SOLVER.WARMUP_FACTOR = 0.1
    for key, value in values.items():
        cfg.SOLVER[key] = value
    return cfg


def test_multi_step_matches_golden() -> None:
    cfg = solver_cfg("WarmupMultiStepLR", MAX_ITER=160000, STEPS=(112000,), WARMUP_FACTOR=1.0)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1e-5, 1e-4)]
    schedule = build_scheduler(cfg, torch.optim.AdamW(groups))
    for iteration, expected in json.loads((GOLDEN / "lr.json").read_text()).items():
        assert schedule.apply(int(iteration)) == pytest.approx(expected, rel=1e-12)
        assert schedule.optimizer.param_groups[1]["lr"] == pytest.approx(expected[1])


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 0.1), (5, 0.55), (10, 1.0), (49, 1.0), (50, 0.1), (80, 0.01)]
)
def test_multi_step_with_warmup(iteration: int, expected: float) -> None:
    assert schedule_factor(solver_cfg("WarmupMultiStepLR"))(iteration) == pytest.approx(expected)


def test_constant_warmup() -> None:
    factor = schedule_factor(solver_cfg("WarmupMultiStepLR", WARMUP_METHOD="constant"))
    assert [factor(0), factor(9), factor(10)] == pytest.approx([0.1, 0.1, 1.0])


def test_cosine_ends_at_base_lr_end() -> None:
    factor = schedule_factor(solver_cfg("WarmupCosineLR", BASE_LR=1e-3, BASE_LR_END=1e-5))
    assert factor(0) == pytest.approx(0.1)
    assert factor(50) == pytest.approx(0.505)
    assert factor(100) == pytest.approx(0.01)


def test_cosine_rescaled_to_the_rest() -> None:
    factor = schedule_factor(solver_cfg("WarmupCosineLR", RESCALE_INTERVAL=True))
    assert factor(10) == pytest.approx(1.0)
    assert factor(55) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))


def test_poly_and_its_floor() -> None:
    factor = schedule_factor(solver_cfg("WarmupPolyLR", POLY_LR_POWER=0.9))
    assert factor(5) == pytest.approx(0.95**0.9 * 0.55)
    assert factor(50) == pytest.approx(0.5**0.9)
    floored = schedule_factor(solver_cfg("WarmupPolyLR", POLY_LR_CONSTANT_ENDING=0.2))
    assert floored(99) == pytest.approx(0.2)


def test_fixed_gamma_decays_at_equal_distances() -> None:
    factor = schedule_factor(solver_cfg("WarmupStepWithFixedGammaLR", NUM_DECAYS=3, WARMUP_ITERS=0))
    assert [factor(i) for i in (0, 24, 25, 74, 99)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])


def test_steps_beyond_the_end_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    schedule_factor(solver_cfg("WarmupMultiStepLR", STEPS=(50, 500)))
    assert "beyond MAX_ITER 100" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"), [("LR_SCHEDULER_NAME", "WarmupCosinLR"), ("WARMUP_METHOD", "square")]
)
def test_unknown_names_are_refused(key: str, value: str) -> None:
    cfg = solver_cfg("WarmupMultiStepLR")
    cfg.SOLVER[key] = value
    with pytest.raises(ConfigError, match=f"SOLVER.{key} '{value}'"):
        schedule_factor(cfg)
