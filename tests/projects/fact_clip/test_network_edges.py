"""FACT networks of every kind on short, long and odd videos; published checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.projects.fact_clip.golden_ground import FactCase, load_fact_case
from vidseg.checkpoint import load_weights
from vidseg.config import CfgNode, get_cfg
from vidseg.projects.fact_clip.blocks import BlockOutput
from vidseg.projects.fact_clip.config import add_config
from vidseg.projects.fact_clip.network import FactNetwork
from vidseg.projects.fact_clip.prediction import predict
from vidseg.projects.fact_clip.settings import settings_of

CLASSES, WIDTH = 4, 7
SMALL: dict[str, Any] = {
    "FACT.ntoken": 5,
    "FACT.block": "iuUU",
    "Bi.hid_dim": 16,
    "Bi.a_dim": 8,
    "Bi.a_nhead": 2,
    "Bi.a_ffdim": 12,
    "Bi.a_layers": 2,
    "Bi.f": "m2",
    "Bi.f_ln": False,
    "Bi.f_dim": 12,
    "Bi.f_ngp": 1,
    "Bi.f_layers": 5,
    "Bu.f_layers": 3,
    "BU.f_layers": 3,
}
PUBLISHED = {
    "breakfast": (
        48,
        119_458_304,
        "FACT.ntoken 60 Bi.a_ffdim 512 Bi.f m2 Bi.f_ln False Bi.f_ngp 1 Bu.f_layers 10 "
        "BU.f_layers 10",
    ),
    "gtea": (
        11,
        10_418_176,
        "FACT.ntoken 60 FACT.block iuU FACT.fpos False Bi.a_ffdim 512 Bi.f_dim 128 Bi.a_dim 128 "
        "Bi.f_ln False Bi.f_ngp 1 Bu.f_layers 10 BU.f_layers 10",
    ),
    "egoprocel": (
        130,
        40_972_544,
        "FACT.ntoken 200 FACT.block iUUU FACT.fpos False Bi.a_ffdim 512 Bi.f m2 Bi.f_ln False "
        "Bi.f_ngp 1 Bi.f_dim 256 Bi.a_dim 256 BU.f_layers 10",
    ),
    "gtea_transcript": (
        11,
        8_533_760,
        "FACT.trans True FACT.block iuU FACT.fpos False Bi.a_ffdim 512 Bi.f_dim 128 Bi.a_dim 128 "
        "Bi.f_ln False Bi.f_ngp 1 Bi.a_layers 3 Bu.f_layers 3 BU.f_layers 5",
    ),
}


def config(**changes: Any) -> CfgNode:
    cfg = get_cfg()
    add_config(cfg)
    for key, value in {**SMALL, **changes}.items():
        cfg.merge_from_list([key, value])
    return cfg


def network(**changes: Any) -> FactNetwork:
    torch.manual_seed(0)
    return FactNetwork(settings_of(config(**changes), CLASSES + 1), WIDTH, CLASSES)


def check_outputs(outputs: list[BlockOutput], num_frames: int, num_tokens: int) -> None:
    for output in outputs:
        assert output.frame_logits.shape == (num_frames, CLASSES)
        assert output.token_logits.shape == (num_tokens, CLASSES + 1)
        for tensor in vars(output).values():
            if isinstance(tensor, Tensor):
                assert torch.isfinite(tensor).all()
    last = outputs[-1]
    assert last.a2f_attention.shape == (num_frames, num_tokens)
    assert last.f2a_attention.shape == (num_tokens, num_frames)
    torch.testing.assert_close(last.a2f_attention.sum(1), torch.ones(num_frames))


def total(outputs: list[BlockOutput]) -> Tensor:
    tensors = (t for output in outputs for t in vars(output).values())
    return sum(
        (t.square().mean() for t in tensors if isinstance(t, Tensor) and t.requires_grad),
        start=torch.zeros(()),
    )


@pytest.mark.parametrize("num_frames", [1, 2, 3, 17, 600])
@pytest.mark.parametrize("branch", ["m", "m2"])
@pytest.mark.parametrize("trains", [False, True])
def test_any_length_has_finite_outputs_and_gradients(
    num_frames: int, branch: str, trains: bool
) -> None:
    model = network(**{"Bi.f": branch, "Bi.dropout": 0.2, "TM.use": True}).train(trains)
    outputs = model.run_blocks(torch.randn(num_frames, WIDTH))
    check_outputs(outputs, num_frames, 5)
    total(outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("blocks", ["iu", "iU", "iuU", "iUu", "iUUU", "iuuu", "IU", "IUU"])
def test_any_block_string_trains_all_its_weights(blocks: str) -> None:
    cfg = config(**{"FACT.block": blocks})
    kinds = "IU" if blocks[0] == "I" else "iuU"
    model = FactNetwork(settings_of(cfg, CLASSES + 1, kinds=kinds), WIDTH, CLASSES).train()
    outputs = model.run_blocks(torch.randn(40, WIDTH))
    check_outputs(outputs, 40, 5)
    assert [o.segments is not None for o in outputs] == [letter in "IU" for letter in blocks]
    total(outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("branch", ["sca", "gru_om", "gru"])
@pytest.mark.parametrize("transcript", [[2], [1, 3, 1, 0, 2, 0]])
def test_transcripts_of_any_length(branch: str, transcript: list[int]) -> None:
    changes = {"FACT.trans": True, "Bi.a": branch, "FACT.ntoken": 0}
    if branch == "gru":
        changes |= {"Bi.a_dim": 16}
    model = network(**changes).eval()
    classes = torch.tensor(transcript)
    outputs = model.run_blocks(torch.randn(20, WIDTH), classes)
    check_outputs(outputs, 20, len(transcript))
    prediction = predict(outputs[-1], 0.3, classes)
    assert set(prediction.labels.tolist()) <= set(transcript)
    assert torch.equal(prediction.probabilities.argmax(1), prediction.labels)


def test_what_cannot_run_is_refused() -> None:
    model = network()
    for features in (torch.zeros(0, WIDTH), torch.zeros(3, WIDTH + 1), torch.zeros(1, 3, WIDTH)):
        with pytest.raises(ValueError, match=f"not \\(frames, {WIDTH}\\)"):
            model.run_blocks(features)
    with_transcript = network(**{"FACT.trans": True})
    for transcript in (None, torch.zeros(0, dtype=torch.int64)):
        with pytest.raises(ValueError, match="no transcript"):
            with_transcript.run_blocks(torch.zeros(3, WIDTH), transcript)


def test_a_video_of_one_segment() -> None:
    model = network().eval()
    with torch.no_grad():
        branch = model.block_list[1].frame_branch.conv_out
        branch.weight[-CLASSES:] = 0
        branch.bias[-CLASSES:] = torch.tensor([9.0, 0.0, 0.0, 0.0])
    outputs = model.run_blocks(torch.randn(50, WIDTH))
    assert outputs[2].segments is not None
    assert outputs[2].segments.lengths.tolist() == [50]
    check_outputs(outputs, 50, 5)


def test_positions_go_on_beyond_the_table() -> None:
    model = network(**{"FACT.block": "iU", "Bi.f_layers": 1, "BU.f_layers": 1}).eval()
    features = torch.randn(10_050, WIDTH)
    with torch.no_grad():
        check_outputs(model.run_blocks(features), 10_050, 5)
    assert len(model.frame_pe(10_050)) == 10_050
    assert torch.equal(model.frame_pe(10_050)[:10_000], model.frame_pe(10_000))


def test_masked_classes_have_no_probability_and_get_no_gradient() -> None:
    model = network(**{"FACT.block": "iuU"}).train()
    model.head.class_mask = torch.tensor([True, False, True, True])
    outputs = model.run_blocks(torch.randn(30, WIDTH))
    for output in outputs:
        assert torch.isneginf(output.frame_logits[:, 1]).all()
        assert torch.isneginf(output.token_logits[:, 1]).all()
        assert torch.isfinite(output.token_logits[:, -1]).all()
        assert (output.frame_features[:, -CLASSES:][:, 1] == 0).all()
    (
        outputs[-1].frame_features.square().sum() + outputs[-1].token_features.square().sum()
    ).backward()
    gradient = model.block_list[-1].frame_branch.conv_out.bias.grad
    assert gradient[-CLASSES:][1] == 0
    assert gradient.isfinite().all()
    assert not predict(outputs[-1], 0.5).labels.eq(1).any()
    assert not any("class_mask" in name for name in model.state_dict())


def test_evaluation_is_the_same_twice_and_leaves_the_features_alone() -> None:
    model = network(**{"Bi.dropout": 0.3, "TM.use": True, "TM.p": 0.5})
    features = torch.randn(60, WIDTH)
    before = features.clone()
    model.train()
    assert not torch.equal(
        model.run_blocks(features)[-1].frame_logits, model.run_blocks(features)[-1].frame_logits
    )
    model.eval()
    first, second = (model.run_blocks(features)[-1].frame_logits for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(features, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_near_float32(dtype: torch.dtype) -> None:
    model = network(**{"Bi.f_layers": 2, "FACT.cmr": 0.0, "Bi.dropout": 0.0, "FACT.block": "iu"})
    features = torch.randn(40, WIDTH)
    exact = model.run_blocks(features)[-1]
    with torch.autocast("cpu", dtype=dtype):
        rough = model.run_blocks(features)[-1]
    torch.testing.assert_close(rough.frame_logits.float(), exact.frame_logits, atol=0.1, rtol=0.1)
    total([rough]).backward()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_fit(name: str) -> None:
    classes, num_parameters, keys = PUBLISHED[name]
    cfg = get_cfg()
    add_config(cfg)
    cfg.merge_from_list(keys.split())
    with torch.device("meta"):
        model = FactNetwork(settings_of(cfg, classes + 1), 2048, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    recorded = load_fact_case("official_keys").json(f"{name}.json")
    own = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    expected = {key: tuple(shape) for key, shape, _ in recorded if not key.endswith(".pe")}
    assert own == expected


@pytest.mark.parametrize("name", ["iuUU_o2o", "iuU_mstcn_ln", "transcript_sca"])
def test_tables_of_positions_in_a_file_are_passed_over(name: str) -> None:
    case: FactCase = load_fact_case(name)
    model = case.network()
    tables = {key: shape for key, shape in case.names_shapes.items() if key.endswith(".pe")}
    assert tables
    state = {**model.state_dict(), **{key: torch.zeros(shape) for key, shape in tables.items()}}

    report = load_weights(model, state)

    assert report.missing == report.unexpected == []
    assert not report.mismatched
    report = load_weights(model, {**state, "frame_pe.other": torch.zeros(1)})
    assert report.unexpected == ["frame_pe.other"]
