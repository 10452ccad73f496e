"""The FACT network against recorded runs of the published code."""

from __future__ import annotations

import pytest
import torch

from tests.projects.fact_clip.golden_ground import ATOL, MODEL_CASES, load_fact_case
from vidseg.projects.fact_clip.prediction import predict


@pytest.mark.parametrize("name", MODEL_CASES)
@torch.no_grad()
def test_every_tensor_of_every_block_is_the_recorded_one(name: str) -> None:
    case = load_fact_case(name)
    network = case.network()
    transcript = case.transcript() if case.cfg.FACT.trans else None

    outputs = network.run_blocks(case.features(), transcript)

    compared = 0
    for block, output in enumerate(outputs):
        ours = {
            "frame_clogit": output.frame_logits[:, None],
            "action_clogit": output.token_logits[:, None],
            "frame_feature": output.frame_features[:, None],
            "action_feature": output.token_features[:, None],
        }
        if output.a2f_logits is not None and output.f2a_logits is not None:
            ours |= {
                "f2a_attn": output.f2a_attention[None],
                "a2f_attn": output.a2f_attention[None],
                "f2a_attn_logit": output.f2a_logits[None],
                "a2f_attn_logit": output.a2f_logits[None],
                "pred": predict(output, case.cfg.FACT.mwt, transcript).labels,
            }
        if output.segments is not None and output.segment_logits is not None:
            ours |= {
                "seg_clogit": output.segment_logits[:, None],
                "seg_start": output.segments.starts,
                "seg_len": output.segments.lengths,
            }
        for key, tensor in ours.items():
            expected = case.outputs.get(f"v0_b{block}_{key}")
            if expected is None:
                assert key in ("frame_feature", "action_feature")
                assert block + 1 < len(outputs)
                continue
            compared += 1
            if expected.is_floating_point():
                torch.testing.assert_close(tensor, expected, atol=ATOL, rtol=0)
            else:
                assert torch.equal(tensor, expected)
    assert compared == sum(name.startswith("v0_b") and name[5] == "_" for name in case.outputs)
