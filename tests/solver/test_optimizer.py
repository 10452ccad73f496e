"""Parameter rules, clipping and the update itself against the published solver."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError
from vidseg.solver import build_clipper, build_optimizer, build_scheduler, parameter_settings

GOLDEN = Path(__file__).parents[1] / "golden" / "dvis_daq_training" / "solver"


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(3, 2))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, 4))
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.ln = nn.LayerNorm(4)
        self.attn = Attention()
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


class Tracker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.gn = nn.GroupNorm(2, 4)
        self.new_ins_embeds = nn.Embedding(1, 4)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.tracker = Tracker()


@pytest.fixture
def cfg() -> CfgNode:
    """Holds the solver of the published DAQ_Online_R50.yaml of OVIS."""
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 1e-4
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    cfg.SOLVER.MAX_ITER = 160000
    cfg.SOLVER.STEPS = (112000,)
    cfg.SOLVER.WARMUP_FACTOR = 1.0
    cfg.SOLVER.WARMUP_ITERS = 10
    return cfg


def test_settings_match_golden(cfg: CfgNode) -> None:
    expected = json.loads((GOLDEN / "groups.json").read_text())
    settings = parameter_settings(cfg, Toy())
    assert [s.name for s in settings] == [group["param"] for group in expected]
    for setting, group in zip(settings, expected, strict=True):
        assert setting.lr == pytest.approx(group["lr"], rel=1e-12), setting.name
        assert setting.weight_decay == group["weight_decay"], setting.name
    optimizer = build_optimizer(cfg, Toy())
    assert all(group["betas"] == (0.9, 0.999) for group in optimizer.param_groups)
    assert all(group["eps"] == 1e-8 for group in optimizer.param_groups)


def test_two_steps_match_golden(cfg: CfgNode) -> None:
    inputs, outputs = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "outputs.npz")
    model = Toy()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(inputs[f"before/{name}"]))
    optimizer, clip = build_optimizer(cfg, model), build_clipper(cfg)
    schedule = build_scheduler(cfg, optimizer)
    trainable = [p for p in model.parameters() if p.requires_grad]
    for iteration in range(2):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.grad = torch.from_numpy(inputs[f"grad/{name}"].copy())
        schedule.apply(iteration)
        clip(trainable)
        optimizer.step()
    for name, parameter in model.named_parameters():
        expected = torch.from_numpy(outputs[f"after2/{name}"])
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=0)


def test_equal_settings_share_a_group(cfg: CfgNode) -> None:
    assert len(build_optimizer(cfg, Toy()).param_groups) == 4


def test_sgd_uses_momentum(cfg: CfgNode) -> None:
    cfg.SOLVER.OPTIMIZER = "SGD"
    assert build_optimizer(cfg, Toy()).param_groups[0]["momentum"] == cfg.SOLVER.MOMENTUM


def test_decay_of_adam_is_part_of_the_gradient(cfg: CfgNode) -> None:
    cfg.SOLVER.BASE_LR = 0.1
    after = {}
    for cfg.SOLVER.OPTIMIZER in ("ADAM", "ADAMW"):
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, 10.0)
        layer.weight.grad = torch.zeros_like(layer.weight)
        build_optimizer(cfg, layer).step()
        after[cfg.SOLVER.OPTIMIZER] = float(layer.weight)
    # Adam's first step has the size of the rate whatever the gradient, here the decay alone.
    assert after == pytest.approx({"ADAM": 9.9, "ADAMW": 10 * (1 - 0.1 * 0.05)}, abs=1e-5)


def test_unknown_optimizer_is_named(cfg: CfgNode) -> None:
    cfg.SOLVER.OPTIMIZER = "ADAMV"
    with pytest.raises(ConfigError, match=r"SOLVER.OPTIMIZER 'ADAMV'.*ADAMW"):
        build_optimizer(cfg, Toy())


def test_choices_are_said_once(cfg: CfgNode) -> None:
    cfg.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(ConfigError, match=r"'LION' is unknown; choose from ADAMW, ADAM, SGD$"):
        build_optimizer(cfg, nn.Linear(1, 1))


def test_model_without_trainable_parameters_is_refused(cfg: CfgNode) -> None:
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer(cfg, nn.Linear(1, 1).requires_grad_(False))


def gradients(*values: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(v))) for v in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


@pytest.mark.parametrize(
    ("clip_type", "first", "second"),
    [
        ("full_model", [3 / 13, 4 / 13], [12 / 13]),
        ("norm", [0.6, 0.8], [1.0]),
        ("value", [1.0, 1.0], [1.0]),
    ],
)
def test_clip_types(cfg: CfgNode, clip_type: str, first: list[float], second: list[float]) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    parameters = gradients([3.0, 4.0], [12.0])
    norm = build_clipper(cfg)(parameters)
    assert float(norm) == pytest.approx(13.0)
    torch.testing.assert_close(parameters[0].grad, torch.tensor(first), atol=1e-5, rtol=0)
    torch.testing.assert_close(parameters[1].grad, torch.tensor(second), atol=1e-5, rtol=0)


def test_no_clipping_still_reports_the_norm(cfg: CfgNode) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    parameters = gradients([3.0, 4.0])
    assert float(build_clipper(cfg)(parameters)) == pytest.approx(5.0)
    assert parameters[0].grad is not None
    assert parameters[0].grad.tolist() == [3.0, 4.0]


def test_unknown_clip_type_is_named(cfg: CfgNode) -> None:
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "fullmodel"
    with pytest.raises(ConfigError, match="full_model"):
        build_clipper(cfg)
