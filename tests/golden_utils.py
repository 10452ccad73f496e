"""Reference cases under ``tests/golden`` and the rule by which their weights follow from names."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"

Override = Sequence[Any]  # [regex, "scale" | "center" | "sqrt_cols", value]


@dataclass(frozen=True)
class GoldenCase:
    """One folder of a recorded run; files are read on first use."""

    folder: Path

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return _arrays(self.folder / "inputs.npz")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return _arrays(self.folder / "outputs.npz")

    @cached_property
    def overrides(self) -> list[Override]:
        file = self.folder / "rule.json"
        return json.loads(file.read_text())["overrides"] if file.exists() else []

    @cached_property
    def names_shapes(self) -> dict[str, tuple[int, ...]]:
        entries = json.loads((self.folder / "state_dict.json").read_text())
        return {name: tuple(shape) for name, shape, _ in entries}

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def state_dict(self) -> dict[str, Tensor]:
        return rule_state_dict(self.names_shapes.items(), self.overrides)


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a recorded config by their full keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value: Any) -> Any:
    """The value as json would give it back."""
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def load_case(name: str) -> GoldenCase:
    """A case by its folder, e.g. ``"dvis_daq/refiner"``."""
    folder = GOLDEN / name
    assert folder.is_dir(), f"no golden case {folder}"
    return GoldenCase(folder)


def rule_state_dict(
    names_shapes: Iterable[tuple[str, Sequence[int]]], overrides: Iterable[Override] = ()
) -> dict[str, Tensor]:
    """The weights of a reference run; entries that the rule leaves alone are not in it."""
    overrides = list(overrides)
    weights: dict[str, Tensor] = {}
    for name, shape in names_shapes:
        if _is_left_alone(name):
            continue
        value = _rule_value(name, tuple(shape))
        for pattern, operation, factor in overrides:
            if re.search(pattern, name):
                value = _override(value, operation, factor)
        weights[name] = torch.from_numpy(value)
    return weights


def apply_rule_weights(
    module: nn.Module, overrides: Iterable[Override] | GoldenCase = (), *, prefix: str = ""
) -> None:
    """Gives a module the weights of the rule, by its own names with ``prefix`` in front."""
    if isinstance(overrides, GoldenCase):
        overrides = overrides.overrides
    own = module.state_dict()
    named = [(prefix + name, t.shape) for name, t in own.items() if t.is_floating_point()]
    weights = rule_state_dict(named, overrides)
    module.load_state_dict({**own, **{n.removeprefix(prefix): w for n, w in weights.items()}})


def _arrays(file: Path) -> dict[str, Tensor]:
    with np.load(file) as archive:
        return {name: torch.from_numpy(array) for name, array in archive.items()}


def _is_left_alone(name: str) -> bool:
    return name.endswith(("num_batches_tracked", "relative_position_index", "empty_weight"))


def _rule_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    draw = np.asarray(rng.standard_normal(shape), dtype=np.float32)
    tenth = np.float32(0.1)
    if name.endswith("running_var"):
        return np.float32(1) + tenth * np.abs(draw)
    if name.endswith("running_mean"):
        return tenth * draw
    if len(shape) >= 2:
        return (draw.astype(np.float64) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if name.endswith("weight"):
        return np.float32(1) + tenth * draw
    return tenth * draw


def _override(value: np.ndarray, operation: str, factor: float | None) -> np.ndarray:
    if operation == "center":
        axes = tuple(range(1, value.ndim))
        return value - value.astype(np.float64).mean(axes, keepdims=True).astype(np.float32)
    assert factor is not None
    if operation == "sqrt_cols":
        factor *= float(np.sqrt(value.shape[1]))
    return value * np.float32(factor)
