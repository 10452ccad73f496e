"""The export command: what it refuses, and what it says."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from vidseg.errors import UserError
from vidseg.export import Exported
from vidseg.export.checking import Comparison, compare
from vidseg.export.programs import check_packages, record
from vidseg.modeling.meta_arch import ExportPart, FrameSize

TOOL = Path(__file__).resolve().parents[2] / "tools" / "export.py"
PROJECTS = TOOL.parents[1] / "projects"
SIZE = FrameSize(1, 4, 5)


@pytest.fixture
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("export_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(folder: Path, config: str = "dvis_daq/online.yaml", *words: str) -> list[str]:
    return ["--config-file", str(PROJECTS / config), "--output", str(folder), *words]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "480"), "must be HEIGHTxWIDTH, such as 480x640, or dynamic"),
        (("--size", "0x64"), "must be HEIGHTxWIDTH"),
        (("--frames", "2"), "only with --size HxW"),
        (("--size", "dynamic", "--frames", "2"), "only with --size HxW"),
        (("--max-tracks", "0"), "must be 1 or more"),
        (("--format", "tflite"), "invalid choice"),
    ],
)
def test_words_that_mean_nothing(words, said, tool, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main(command(tmp_path, "dvis_daq/online.yaml", *words))
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_models_without_parts_name_those_that_have(tool, tmp_path) -> None:
    with pytest.raises(UserError, match=r"RQVAE\w* has no parts .* these have: .*DVIS_DAQ_online"):
        tool.main(command(tmp_path / "no", "rqvae/rqvae.yaml"))
    assert not (tmp_path / "no").exists()


def test_the_offline_model_names_the_online_one(tiny_cfg) -> None:
    from vidseg.modeling import build_model
    from vidseg.modeling.meta_arch import ExportOptions

    model: Any = build_model(tiny_cfg("dvis_daq", "offline"))
    with pytest.raises(UserError, match=r"MODEL\.META_ARCHITECTURE DVIS_DAQ_online"):
        model.export_parts(ExportOptions())


def test_missing_packages_name_the_extra(monkeypatch, tool, tmp_path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    with pytest.raises(UserError, match=r"need.* onnxruntime: pip install 'vidseg\[export\]'"):
        check_packages()
    with pytest.raises(UserError, match="--format torch"):
        tool.main(command(tmp_path, "dvis_daq/online.yaml", "--format", "both"))


@pytest.mark.parametrize(
    ("comparison", "code"),
    [
        (Comparison(SIZE, 3e-4, 2e-5, ()), 0),
        (Comparison(SIZE, 3e-4, 2e-4, ()), 1),
        (Comparison(SIZE, 0.0, 0.0, ("visible",)), 1),
    ],
)
def test_a_file_unlike_the_model_fails_the_command(
    comparison, code, tool, tmp_path, monkeypatch, capsys
) -> None:
    from vidseg import VideoPredictor

    exported = [Exported(tmp_path / "tracker.pt2", [comparison])]
    monkeypatch.setattr(VideoPredictor, "from_config", lambda *_, **options: None)
    monkeypatch.setattr("vidseg.export.export_model", lambda *_: exported)
    assert tool.main(command(tmp_path)) == code
    out, err = capsys.readouterr()
    assert f"differs from the model by {comparison.relative:.1e} at 1x4x5" in out
    assert ("is not like the model" in err) == bool(code)
    assert ("not the same: visible" in err) == bool(comparison.differing)


class _Tied(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x + torch.ones(len(x[0])),)


class _Asking(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x + 1 if x.sum() > 0 else x,)


@pytest.mark.parametrize(
    ("module", "is_dynamic", "said"),
    [
        pytest.param(
            _Tied(),
            True,
            r"another graph for every size .*width.*; give one, as --size 480x640$",
            marks=pytest.mark.slow,
        ),
        (_Asking(), False, r"the p cannot be exported \(Could not guard on data-dependent"),
    ],
)
def test_modules_that_no_graph_can_hold(module, is_dynamic, said) -> None:
    part = ExportPart(
        "p",
        module,
        ("x",),
        lambda size: {"x": torch.ones(size[1:])},
        {"y": ""},
        dynamic={"x": {1: "width"}},
    )
    if not is_dynamic:
        record(ExportPart("p", _Tied(), ("x",), part.make_inputs, {}), SIZE, is_dynamic=False)
    with pytest.raises(UserError, match=said):
        record(part, SIZE, is_dynamic=is_dynamic)


class _Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return 2 * x, x > 0, x


def test_comparisons_see_every_kind_of_difference() -> None:
    outputs = {"real": "", "truth": "", "shape": ""}
    part = ExportPart("p", _Doubled(), ("x",), lambda size: {"x": torch.ones(2)}, outputs)

    def run(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            "real": 2 * inputs["x"] + 0.5,
            "truth": torch.zeros(2, dtype=torch.bool),
            "shape": inputs["x"][:1],
        }

    assert compare(part, run, [SIZE]) == [Comparison(SIZE, 0.5, 0.25, ("truth", "shape"))]


class _Same(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x,)


@pytest.mark.parametrize(
    ("given", "found", "differing"),
    [
        (math.inf, math.inf, ()),
        (math.inf, 1.0, ("y",)),
        (1.0, math.inf, ("y",)),
        (1.0, math.nan, ("y",)),
        (math.nan, math.nan, ("y",)),  # nothing was compared
    ],
)
def test_comparisons_of_what_is_no_finite_number(
    given: float, found: float, differing: tuple[str, ...]
) -> None:
    part = ExportPart(
        "p", _Same(), ("x",), lambda size: {"x": torch.tensor([2.0, given])}, {"y": ""}
    )
    compared = compare(part, lambda _: {"y": torch.tensor([3.0, found])}, [SIZE])
    assert compared == [Comparison(SIZE, *((0.0, 0.0) if differing else (1.0, 0.5)), differing)]
