"""Each building block of FACT against recorded outputs of the published code."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.golden_utils import rule_state_dict
from tests.projects.fact_clip.golden_ground import ATOL, FactCase, load_fact_case
from vidseg.projects.fact_clip.action_branch import SADecoder, SCADecoder, TranscriptGRU
from vidseg.projects.fact_clip.cross_attention import CrossAttention
from vidseg.projects.fact_clip.frame_branch import MSTCN, MSTCN2
from vidseg.projects.fact_clip.segments import Segments, find_segments
from vidseg.projects.fact_clip.sinusoid import SinusoidTable, add_position, sinusoid_rows


@pytest.fixture(scope="module")
def case() -> FactCase:
    return load_fact_case("layers")


def filled(case: FactCase, name: str, module: nn.Module) -> nn.Module:
    """Gives the module the recorded names and weights, and nothing else."""
    recorded = {key: tuple(shape) for key, shape, _ in case.json("state_dict.json")[name]}
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    assert own == recorded
    module.load_state_dict(rule_state_dict(recorded.items()))
    return module.eval()


def given(case: FactCase, name: str) -> Tensor:
    return case.inputs[name][:, 0]


def check(case: FactCase, name: str, out: Tensor) -> None:
    torch.testing.assert_close(out, case.outputs[name].view_as(out), atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    ("name", "module", "source"),
    [
        (
            "mstcn",
            lambda: MSTCN(10, 24, 27, num_layers=4, norm=True, groups=2, in_map=True),
            "x_in",
        ),
        ("mstcn_plain", lambda: MSTCN(24, 24, 24, num_layers=3), "xf"),
        ("mstcn2", lambda: MSTCN2(10, 24, 26, num_layers=4), "x_in"),
        ("mstcn2_noinmap", lambda: MSTCN2(24, 24, 24, num_layers=3, groups=2, in_map=False), "xf"),
    ],
)
@torch.no_grad()
def test_frame_branches(case: FactCase, name: str, module: Any, source: str) -> None:
    check(case, name, filled(case, name, module())(given(case, source)))


@torch.no_grad()
def test_cross_attention(case: FactCase) -> None:
    module = filled(case, "x2y", CrossAttention(24, 24, 22, head_dim=24))
    out, logits, attention = module(
        given(case, "xf"), given(case, "ya"), x_pos=given(case, "fpos"), y_pos=given(case, "apos")
    )
    check(case, "x2y", out)
    check(case, "x2y_attn", attention)
    check(case, "x2y_attn_logit", logits)


@pytest.mark.parametrize(("num_x", "num_y"), [(40, 5), (5, 40), (1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_cross_attention_in_either_order_is_that_of_its_formula(
    num_x: int, num_y: int, dropout: float
) -> None:
    torch.manual_seed(0)
    module = CrossAttention(6, 8, 5, head_dim=10, dropout=dropout).double()
    module.train(dropout == 0)
    x, y = (torch.randn(n, w).double().requires_grad_() for n, w in ((num_x, 6), (num_y, 8)))
    x_pos, y_pos = torch.randn(num_x, 6).double(), torch.randn(num_y, 3).double()
    keys, values = module.X_K(x + x_pos), module.X_V(x)
    queries = module.Y_Q(torch.cat([y[:, :3] + y_pos, y[:, 3:]], 1))
    logits = queries @ keys.t() / 10**0.5
    attention = logits.softmax(-1)
    expected = module.Y_W(torch.cat([y, attention @ values], 1))

    found = module(x, y, x_pos=x_pos, y_pos=y_pos)

    sources = [x, y, *module.parameters()]
    weights = [torch.randn_like(t) for t in found]
    grads = []
    for tensors in (found, (expected, logits, attention)):
        total = sum((t * w).sum() for t, w in zip(tensors, weights, strict=True))
        grads.append(torch.autograd.grad(total, sources))
    # The attention is computed in float32 whatever the dtype of the features.
    tolerance = {"atol": 1e-5, "rtol": 1e-5}
    for ours, theirs in zip(found, (expected, logits, attention), strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_dropout_of_cross_attention_acts_in_training_only() -> None:
    torch.manual_seed(0)
    module = CrossAttention(6, 6, 5, head_dim=6, dropout=0.5)
    for num_x, num_y in ((30, 4), (4, 30)):
        x, y = torch.randn(num_x, 6), torch.randn(num_y, 6)
        module.train()
        assert not torch.equal(module(x, y)[0], module(x, y)[0])
        module.eval()
        assert torch.equal(module(x, y)[0], module(x, y)[0])


@torch.no_grad()
def test_action_branches(case: FactCase) -> None:
    tgt, xf, apos, fpos = (given(case, name) for name in ("tgt", "xf", "apos", "fpos"))
    sca = SCADecoder(12, 24, 24, num_layers=2, num_heads=4, ff_dim=30)
    out = filled(case, "sca_decoder", sca)(tgt, xf, frame_pos=fpos, token_pos=apos)
    check(case, "sca_decoder", out)
    sa = SADecoder(12, 24, num_layers=2, num_heads=4, ff_dim=30)
    check(case, "sa_decoder", filled(case, "sa_decoder", sa)(tgt, token_pos=apos))
    gru = TranscriptGRU(12, 24, num_layers=2, dropout=0.3, out_map=True)
    check(case, "gru_om", filled(case, "gru_om", gru)(tgt))


def test_a_transcript_gru_checks_its_widths() -> None:
    with pytest.raises(ValueError, match="even"):
        TranscriptGRU(7, 7, num_layers=1, out_map=True)
    with pytest.raises(ValueError, match="width 8 must be 10"):
        TranscriptGRU(8, 10, num_layers=1, out_map=False)
    one = TranscriptGRU(8, 8, num_layers=1, dropout=0.5, out_map=False)
    assert one(torch.randn(1, 8)).shape == (1, 8)


def test_sinusoid_rows(case: FactCase) -> None:
    check(case, "pe", sinusoid_rows(37, 24))


def test_a_table_gives_more_rows_than_it_keeps_and_stays_out_of_files() -> None:
    table = SinusoidTable(6, 10)
    assert torch.equal(table(4), sinusoid_rows(25, 6)[:4])
    assert torch.equal(table(25), sinusoid_rows(25, 6))
    assert table.pe.shape == (10, 6)
    assert not table.state_dict()
    assert sinusoid_rows(3, 5).shape == (3, 5)
    outer = nn.ModuleDict({"frame_pe": table})
    assert outer.load_state_dict({"frame_pe.pe": torch.zeros(10000, 1, 6)}) is not None
    assert torch.equal(table(4), sinusoid_rows(4, 6))


def test_narrow_positions_reach_the_first_channels_only() -> None:
    x, position = torch.ones(2, 5), torch.full((2, 3), 2.0)
    assert add_position(x, position).tolist() == [[3, 3, 3, 1, 1]] * 2
    assert add_position(x, None) is x


def test_segments(case: FactCase) -> None:
    segments = find_segments(case.inputs["tdu_label"])
    assert torch.equal(segments.starts, case.outputs["tdu_start"])
    assert torch.equal(segments.lengths, case.outputs["tdu_len"])
    assert torch.equal(segments.centres, case.outputs["tdu_center"])
    mean = segments.mean(given(case, "xf"))
    check(case, "tdu_seg_mean", mean)
    check(case, "tdu_frames_back", segments.to_frames(mean))
    assert torch.equal(segments.to_frames(mean.t(), 1), segments.to_frames(mean).t())
    assert segments.num_frames == 37


@pytest.mark.parametrize("labels", [[4], [4, 4, 4], [1, 2, 1], [2, 2, 0, 0, 0, 2]])
def test_segments_rebuild_their_labels(labels: list[int]) -> None:
    segments = find_segments(torch.tensor(labels))
    assert segments.to_frames(segments.labels).tolist() == labels
    assert int(segments.lengths.min()) >= 1
    neighbours = segments.labels.tolist()
    assert all(a != b for a, b in pairwise(neighbours))


def test_segments_average_with_gradients() -> None:
    segments = Segments(torch.tensor([0, 1]), torch.tensor([0, 3]), torch.tensor([3, 1]))
    x = torch.arange(8.0).view(4, 2).requires_grad_()
    mean = segments.mean(x)
    assert mean.tolist() == [[2, 3], [6, 7]]
    mean.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1 / 3] * 2] * 3 + [[1.0] * 2]))


def test_no_frames_have_no_segments() -> None:
    with pytest.raises(ValueError, match="without frames"):
        find_segments(torch.zeros(0, dtype=torch.int64))
