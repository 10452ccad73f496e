"""Loading weights: wrappers, formats, renames, misfits, and files that must not be trusted."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vidseg.checkpoint import check_complete, load_weights, read_state_dict
from vidseg.errors import DataError, UserError


class Model(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.class_embed = nn.Linear(2, num_classes + 1)
        self.query_feat = nn.Embedding(4, 2)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return Model().state_dict()


def assert_loaded(model: Model, state: dict[str, torch.Tensor]) -> None:
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".pt", None])
def test_wrappers(
    tmp_path: Path, state: dict, wrapper: str | None, prefix: str, suffix: str | None
) -> None:
    content: dict[str, Any] = {prefix + name: value for name, value in state.items()}
    if wrapper:
        content = {wrapper: content, "iteration": 7}
    source: Any = content
    if suffix:
        source = tmp_path / f"weights{suffix}"
        torch.save(content, source)
    model = Model()
    report = load_weights(model, source)
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], {})
    assert_loaded(model, state)


def test_safetensors(tmp_path: Path, state: dict) -> None:
    save_file(state, tmp_path / "w.safetensors")
    model = Model()
    load_weights(model, str(tmp_path / "w.safetensors"))
    assert_loaded(model, state)


def test_model_zoo_pickle(tmp_path: Path, state: dict) -> None:
    arrays = {name: value.numpy() for name, value in state.items()}
    content = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=2))
    model = Model()
    load_weights(model, tmp_path / "w.pkl")
    assert_loaded(model, state)


def test_bare_backbone_finds_its_place(state: dict) -> None:
    bare = {"weight": state["backbone.weight"], "bias": state["backbone.bias"]}
    model = Model()
    report = load_weights(model, bare)
    assert torch.equal(model.backbone.weight, state["backbone.weight"])
    assert report.unexpected == []
    assert len(report.missing) == 3


def test_published_rename(state: dict) -> None:
    state["static_query.weight"] = state.pop("query_feat.weight")
    model = Model()
    report = load_weights(model, state)
    assert report.missing == []
    assert torch.equal(model.query_feat.weight, state["static_query.weight"])


def test_misfits_are_reported_in_groups(state: dict, caplog: pytest.LogCaptureFixture) -> None:
    state["refiner.layers.0.weight"] = torch.zeros(1)
    state["refiner.layers.0.bias"] = torch.zeros(1)
    del state["query_feat.weight"]
    model = Model(num_classes=5)
    before = model.class_embed.weight.clone()
    report = load_weights(model, state)
    assert report.missing == ["query_feat.weight"]
    assert sorted(report.unexpected) == ["refiner.layers.0.bias", "refiner.layers.0.weight"]
    assert report.mismatched == {
        "class_embed.weight": ((4, 2), (6, 2)),
        "class_embed.bias": ((4,), (6,)),
    }
    assert torch.equal(model.class_embed.weight, before)
    assert "refiner.layers.0 (2)" in caplog.text
    assert "class_embed (2)       another class count: 3 in the file, 5 here" in caplog.text
    assert "knows 3 classes, this model 5 (MODEL.SEM_SEG_HEAD.NUM_CLASSES)" in caplog.text


def test_whole_parts_must_not_be_left_at_random(
    state: dict, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()
    check_complete(load_weights(model, state), model, "w.pth")
    assert "lacks" not in caplog.text
    del state["class_embed.bias"]
    check_complete(load_weights(model, state), model, "w.pth")
    assert "w.pth lacks parameters, left at random: class_embed (1)" in caplog.text
    del state["query_feat.weight"]
    state["class_embed.weight"] = torch.zeros(9, 9)  # of another shape: not loaded either
    report = load_weights(model, state)
    with pytest.raises(UserError, match=r"^w\.pth has no weights for class_embed, query_feat of"):
        check_complete(report, model, "w.pth")


def test_a_parameter_of_the_model_itself_must_fit_too() -> None:
    model = Model()
    model.query = torch.nn.Parameter(torch.zeros(30, 2))
    state = {**model.state_dict(), "query": torch.zeros(24, 2)}
    with pytest.raises(UserError, match=r"^w\.pth has other shapes for query \(1\) of Model"):
        check_complete(load_weights(model, state), model, "w.pth")


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(DataError, match="does not fit the model"):
        load_weights(Model(), {"other.weight": torch.zeros(1)})


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_strange_pickles_are_not_executed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"evil{suffix}"
    if suffix == ".pth":
        torch.save({"model": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(DataError, match=r"evil.*not loaded"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04broken"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"broken{suffix}"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.pth", "does not exist"),
        ("absent.pkl", "does not exist"),
        ("absent.safetensors", "does not exist"),
        ("detectron2://a/b.pkl", "not downloaded"),
        ({"epoch": 3}, "no tensors"),
    ],
)
def test_absent_or_empty_sources(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_state_dict(source)


def test_a_mistyped_name_gets_the_nearest_weights(tmp_path: Path) -> None:
    for name in ("model_ovis_online.pth", "model_ovis_online.txt", "other.pth"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"does not exist; nearest: \S*/model_ovis_online\.pth$"):
        read_state_dict(tmp_path / "model_ovis_onlin.pth")
    with pytest.raises(DataError, match="does not exist; give the path of one that does"):
        read_state_dict(tmp_path / "gone" / "model_ovis_online.pth")


def test_object_arrays_are_not_weights(tmp_path: Path) -> None:
    content = {"names": np.array(["a", None], dtype=object), "w": np.ones(2)}
    assert list(read_state_dict(content)) == ["w"]


@pytest.mark.parametrize("content", [bytes(range(40, 90)), b"epoch 1\nloss 2\n", b"0x", b"e"])
def test_reasons_are_for_people(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"notes\.pth is damaged or no checkpoint( \(.*input\))?$"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["run", "run.pkl", "run.safetensors"])
def test_folder_is_no_weights_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name} is a folder"):
        read_state_dict(tmp_path / name)


def test_the_caller_may_know_where_names_belong() -> None:
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    weights = {"trunk.weight": torch.full((2, 2), 3.0), "trunk.bias": torch.zeros(2)}

    def place(state: dict, target: Mapping) -> dict:
        assert target.keys() == model.state_dict().keys()
        return {name.replace("trunk", "body"): value for name, value in state.items()}

    report = load_weights(model, weights, place=place)
    assert (report.num_loaded, report.missing) == (2, ["head.weight", "head.bias"])
    assert model["body"].weight.eq(3).all()
    # Names that fit already stay.
    known = {"head.bias": torch.ones(1), **weights}
    assert load_weights(model, known, place=place).unexpected == list(weights)
