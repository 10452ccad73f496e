"""The masked decoder: parity with the published code, masks of the attention, invariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.golden_utils import GoldenCase, load_case
from vidseg.config import get_cfg
from vidseg.errors import ConfigError
from vidseg.modeling.transformer_decoder import DecoderOutput, MaskedTransformerDecoder, masked


def golden_decoder(case: GoldenCase) -> MaskedTransformerDecoder:
    decoder = MaskedTransformerDecoder(
        64,
        7,
        hidden_dim=64,
        num_queries=12,
        dim_feedforward=96,
        num_layers=7,
        mask_dim=64,
        reid_hidden_dim=48,
        reid_layers=3,
    )
    decoder.load_state_dict(case.state_dict())
    return decoder.eval()


def small(**options: bool | int) -> MaskedTransformerDecoder:
    sizes = {"hidden_dim": 32, "num_queries": 5, "num_heads": 4, "dim_feedforward": 48}
    return MaskedTransformerDecoder(24, 3, num_layers=4, mask_dim=16, **(sizes | options))


def small_inputs(batch: int) -> tuple[list[Tensor], Tensor]:
    maps = [torch.randn(batch, 24, 2 * 2**level, 3 * 2**level) for level in range(3)]
    return maps, torch.randn(batch, 16, 16, 24)


@pytest.mark.parametrize("keep_aux", [True, False])
def test_equals_the_published_code(keep_aux: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_case("dvis_daq/decoder_frame")
    decoder = golden_decoder(case)
    assert {n: tuple(w.shape) for n, w in decoder.state_dict().items()} == case.names_shapes
    blocked: list[Tensor] = []
    original = masked._blocked_positions
    monkeypatch.setattr(
        masked, "_blocked_positions", lambda e, v: blocked.append(original(e, v)) or blocked[-1]
    )
    given, want = case.inputs, case.outputs
    with torch.no_grad():
        maps = [given["x0"], given["x1"], given["x2"]]
        out = decoder(maps, given["mask_features"], keep_aux=keep_aux)
    found = {
        "pred_logits": out.logits[None],
        "pred_masks": out.masks.transpose(0, 1)[None],
        "pred_embds": out.embeds.permute(2, 0, 1)[None],
        "pred_embds_without_norm": out.embeds_without_norm.permute(2, 0, 1)[None],
        "pred_reid_embed": out.reid_embeds.permute(2, 0, 1)[None],
    }
    assert len(out.aux) == (7 if keep_aux else 0)
    for i, (logits, masks) in enumerate(out.aux):
        found[f"aux{i}_pred_logits"] = logits[None]
        found[f"aux{i}_pred_masks"] = masks.transpose(0, 1)[None]
    for name, value in found.items():
        atol = 5e-4 if "masks" in name else 1e-4
        torch.testing.assert_close(value, want[name], atol=atol, rtol=0, msg=name)
    for i, rows in enumerate(blocked):
        expected = want[f"attn_blocked_{i}"]
        expected = expected & ~expected.all(-1, keepdim=True)
        assert torch.equal(rows, expected), f"attention mask of layer {i}"


def test_frames_are_independent() -> None:
    decoder = small(reid_layers=2).eval()
    maps, mask_features = small_inputs(3)
    order = torch.tensor([1, 2, 0])
    with torch.no_grad():
        out = decoder(maps, mask_features)
        permuted = decoder([m[order] for m in maps], mask_features[order])
    for name in ("logits", "masks", "embeds", "reid_embeds"):
        torch.testing.assert_close(getattr(permuted, name), getattr(out, name)[order])


@pytest.mark.parametrize("pre_norm", [False, True])
def test_every_parameter_gets_a_gradient(pre_norm: bool) -> None:
    decoder = small(pre_norm=pre_norm, reid_layers=2)
    out = decoder(*small_inputs(2))
    assert len(out.aux) == 4
    predictions = [(out.logits, out.masks), *out.aux]
    loss = sum(logits.square().mean() + masks.square().mean() for logits, masks in predictions)
    (loss + out.reid_embeds.square().mean()).backward()
    assert [n for n, p in decoder.named_parameters() if p.grad is None] == []


def test_norm_order_matters() -> None:
    torch.manual_seed(1)
    after = small().eval()
    before = small(pre_norm=True).eval()
    before.load_state_dict(after.state_dict())
    inputs = small_inputs(1)
    with torch.no_grad():
        assert not torch.allclose(after(*inputs).logits, before(*inputs).logits)


def test_projection_only_where_needed() -> None:
    same = MaskedTransformerDecoder(32, 3, hidden_dim=32, mask_dim=16, num_layers=1)
    forced = MaskedTransformerDecoder(
        32, 3, hidden_dim=32, mask_dim=16, num_layers=1, enforce_input_proj=True
    )
    assert not [name for name in same.state_dict() if name.startswith("input_proj")]
    assert "input_proj.2.weight" in forced.state_dict()


def test_predictions_are_float32_under_autocast() -> None:
    decoder = small().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        out: DecoderOutput = decoder(*small_inputs(1))
    assert out.logits.dtype == out.masks.dtype == torch.float32


def test_an_empty_mask_looks_everywhere() -> None:
    view = torch.ones(1, 4, 6)
    embeds = torch.tensor([[[-1.0, -1, -1, -1], [1, 1, 1, 1]]])
    assert not masked._blocked_positions(embeds, view).any()


def test_heads_divide_the_width() -> None:
    cfg = get_cfg()
    cfg.MODEL.MASK_FORMER.NHEADS = 7
    with pytest.raises(ConfigError, match=r"NHEADS is 7 and .*HIDDEN_DIM 256"):
        MaskedTransformerDecoder.from_config(cfg)
