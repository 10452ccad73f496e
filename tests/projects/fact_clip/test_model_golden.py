"""Losses, matches and gradients of the whole model against recorded runs."""

from __future__ import annotations

import pytest
import torch

from tests.projects.fact_clip.golden_ground import (
    GRADIENT_RTOL,
    LOSS_RTOL,
    MODEL_CASES,
    FactCase,
    fill,
    load_fact_case,
)
from vidseg.projects.fact_clip import FACT
from vidseg.projects.fact_clip.samples import Sample
from vidseg.projects.fact_clip.targets import VideoTargets


def build(case: FactCase) -> FACT:
    """The model of a case; in evaluation mode, as it was recorded, so that nothing is masked."""
    cfg = case.cfg.clone()
    cfg.bg_class = case.facts["bg_class"]
    model = FACT(cfg, case.facts["in_dim"], case.facts["nclass"])
    fill(model)
    return model.eval()


def sample(case: FactCase) -> Sample:
    return {"video_id": "v0", "features": case.features(), "labels": case.labels()}


@pytest.mark.parametrize("name", MODEL_CASES)
def test_matches_losses_and_gradients_are_the_recorded_ones(name: str) -> None:
    case = load_fact_case(name)
    model = build(case)
    targets = VideoTargets.of(case.labels())
    transcript = targets.transcript if case.cfg.FACT.trans else None
    blocks = model.run_blocks(case.features(), transcript)

    match = model.criterion.match_block(blocks[-1], targets)
    order = match.segments.argsort()
    recorded = case.output("match_segment").argsort()
    assert torch.equal(match.tokens[order], case.output("match_token")[recorded])
    for number, block in enumerate(blocks):
        loss = sum(model.criterion.losses([block], targets, match).values())
        expected = case.output("block_loss")[number]
        torch.testing.assert_close(loss, expected.float(), rtol=LOSS_RTOL, atol=0)

    total = sum(model.criterion(blocks, targets).values())
    assert isinstance(total, torch.Tensor)
    torch.testing.assert_close(total, case.output("loss").float(), rtol=LOSS_RTOL, atol=0)
    total.backward()
    parameters = dict(model.named_parameters())
    names = case.json("param_order.json")
    assert set(names) == set(parameters)
    norms = [
        -1.0 if parameters[name].grad is None else parameters[name].grad.norm().item()
        for name in names
    ]
    torch.testing.assert_close(
        torch.tensor(norms), case.outputs["params_grad_norm"].float(), rtol=GRADIENT_RTOL, atol=1e-6
    )


@pytest.mark.parametrize("name", MODEL_CASES)
def test_prediction_is_the_recorded_one(name: str) -> None:
    case = load_fact_case(name)
    [prediction] = build(case)([sample(case)])
    last = len(case.cfg.FACT.block) - 1
    assert torch.equal(prediction.labels, case.output("pred", block=last))


@pytest.mark.parametrize("name", MODEL_CASES)
def test_state_dict_is_the_recorded_one(name: str) -> None:
    case = load_fact_case(name)
    shapes = {key: tuple(value.shape) for key, value in build(case).state_dict().items()}
    recorded = {key: shape for key, shape in case.names_shapes.items() if not key.endswith(".pe")}
    assert shapes == recorded
