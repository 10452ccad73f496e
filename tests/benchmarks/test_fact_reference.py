"""The peer of the FACT benchmarks is what was published: it gives recorded values of that code."""

from __future__ import annotations

import pytest
import torch
import yaml

from benchmarks import fact_clip
from benchmarks.fact_reference import ReferenceFACT
from benchmarks.fact_reference_losses import reference_loss
from tests.golden_utils import GoldenCase, apply_rule_weights, load_case
from vidseg.config import CfgNode

ATOL, LOSS_RTOL, GRADIENT_RTOL = 1e-4, 1e-4, 2e-3
RECORDED = (
    "frame_clogit",
    "action_clogit",
    "seg_clogit",
    "f2a_attn",
    "a2f_attn",
    "f2a_attn_logit",
    "a2f_attn_logit",
)
NUM_CLASSES, INPUT_DIM = 6, 20


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return load_case("fact/iuUU_o2o")


@pytest.fixture(scope="module")
def cfg(case: GoldenCase) -> CfgNode:
    return CfgNode(yaml.safe_load(case.config.read_text()))


@pytest.fixture(scope="module")
def model(case: GoldenCase, cfg: CfgNode) -> ReferenceFACT:
    model = ReferenceFACT(cfg, INPUT_DIM, NUM_CLASSES).eval()
    assert set(model.state_dict()) == {n for n in case.names_shapes if not n.endswith(".pe")}
    apply_rule_weights(model)
    return model


def test_blocks_give_the_recorded_tensors(case: GoldenCase, model: ReferenceFACT) -> None:
    compared = 0
    for number, block in enumerate(model(case.inputs["v0_seq"])):
        for name in RECORDED:
            if name in block:
                recorded = case.outputs[f"v0_b{number}_{name}"]
                torch.testing.assert_close(block[name], recorded, atol=ATOL, rtol=0)
                compared += 1
    assert compared == 2 + 6 + 7 + 7


def test_prediction_is_the_recorded_one(case: GoldenCase, model: ReferenceFACT) -> None:
    assert torch.equal(model.predict(case.inputs["v0_seq"]), case.outputs["v0_b3_pred"])


def test_loss_and_gradients_are_the_recorded_ones(
    case: GoldenCase, cfg: CfgNode, model: ReferenceFACT
) -> None:
    outputs = model(case.inputs["v0_seq"])
    loss = reference_loss(outputs, case.inputs["v0_label"], NUM_CLASSES, [0], cfg.Loss)
    torch.testing.assert_close(loss.double(), case.outputs["loss"], atol=0, rtol=LOSS_RTOL)
    names = case.json("param_order.json")
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names], allow_unused=True)
    norms = [-1.0 if g is None else float(g.norm()) for g in gradients]
    torch.testing.assert_close(
        torch.tensor(norms).double(),
        case.outputs["params_grad_norm"],
        atol=1e-5,
        rtol=GRADIENT_RTOL,
    )


@pytest.mark.parametrize("sizes", [(50, 12, 7), (40, 6, 6), (30, 5, 1)])
def test_both_criteria_ask_for_the_same_change(sizes: tuple[int, int, int]) -> None:
    ours, theirs = (fact_clip._criterion(*sizes, is_ours=side)() for side in (True, False))
    assert len(ours) == len(theirs) == 4
    for own, other in zip(ours, theirs, strict=True):
        assert own.abs().max() > 0
        torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_networks_of_full_size_lose_the_same() -> None:
    torch.manual_seed(0)
    loss = fact_clip._train(60, is_ours=True, checks=True)()
    torch.testing.assert_close(fact_clip._train(60, is_ours=False)(), loss, atol=0, rtol=1e-4)
