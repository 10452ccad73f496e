"""Loading weights of our own runs and of published files into a model.

Names are taken as they are; only the wrapping differs between files: a dict under ``model`` or
``state_dict``, a ``module.`` prefix of data-parallel training, arrays instead of tensors.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidseg.errors import DataError, UserError

from .files import read_checkpoint, read_pickle, require_file

__all__ = ["LoadReport", "check_complete", "load_weights", "read_state_dict"]

logger = logging.getLogger(__name__)

_WRAPPERS = ("model", "state_dict", "model_state_dict")
# Head format before version 2 of the published checkpoints.
_RENAMED = (("static_query", "query_feat"),)
_BACKBONE_PREFIX = "backbone."
_GROUP_DEPTH = 3


@dataclass
class LoadReport:
    """What a file and a model had in common.

    Attributes:
        missing: parameters and buffers of the model that the file does not have.
        unexpected: names in the file that the model does not have.
        mismatched: name to (shape in the file, shape in the model); these were not loaded.
        num_loaded: how many tensors were copied.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    num_loaded: int = 0

    def summary(self) -> str:
        """Describes the report in a few lines, names grouped by their module."""
        lines = [f"{self.num_loaded} tensors loaded"]
        for name, (theirs, ours) in sorted(self.mismatched.items()):
            lines.append(f"  not loaded, other shape: {name} {theirs} in the file, {ours} here")
        if self.missing:
            lines.append(f"  not in the file, left as initialised: {_grouped(self.missing)}")
        if self.unexpected:
            lines.append(f"  in the file, not in the model: {_grouped(self.unexpected)}")
        return "\n".join(lines)


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any]) -> LoadReport:
    """Copies every tensor that fits from a file or state dict into the model.

    Args:
        model: changed in place; its device and dtypes stay.
        source: a path to ``.pth``, ``.pt``, ``.safetensors`` or a detectron2 ``.pkl``, or what such
            a file holds.

    Returns:
        What was missing, unexpected and of another shape. The same is logged.

    Raises:
        DataError: if the file is missing, damaged or unsafe, or not one name fits the model.
    """
    where = str(source) if isinstance(source, str | Path) else "state dict"
    target = model.state_dict()
    state = _placed(_renamed(read_state_dict(source)), target)
    report = LoadReport(
        missing=[name for name in target if name not in state],
        unexpected=[name for name in state if name not in target],
    )
    fitting = {}
    for name, tensor in state.items():
        if name not in target:
            continue
        if tensor.shape != target[name].shape:
            report.mismatched[name] = (tuple(tensor.shape), tuple(target[name].shape))
        else:
            fitting[name] = tensor
    if not fitting:
        example = next(iter(state), "nothing")
        raise DataError(
            f"{where} does not fit the model: no name and shape in common (the file has {example}, "
            f"the model {next(iter(target), 'nothing')})"
        )
    model.load_state_dict(fitting, strict=False)
    report.num_loaded = len(fitting)
    level = logging.WARNING if report.mismatched else logging.INFO
    logger.log(level, "weights of %s: %s", where, report.summary())
    return report


def check_complete(report: LoadReport, model: nn.Module, where: str | Path) -> None:
    """Checks that a model which is not trained any further got its weights.

    Args:
        report: of loading the weights.
        model: that they were loaded into.
        where: the file, for messages.

    Raises:
        UserError: if the file gave nothing to a whole part (``backbone``, ``tracker``); single
            parameters that it lacks are logged as a warning.
    """
    absent = {*report.missing, *report.mismatched}
    parts: dict[str, list[str]] = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        part, dot, _ = name.partition(".")
        if dot:
            parts.setdefault(part, []).append(name)
    lacking = [part for part, names in parts.items() if absent.issuperset(names)]
    if lacking:
        raise UserError(
            f"{where} has no weights for {', '.join(lacking)} of {type(model).__name__}; give the "
            "weights of a finished run of this config, or use the config that made the file"
        )
    missing = [name for names in parts.values() for name in names if name in report.missing]
    if missing:
        logger.warning("%s lacks parameters, left at random: %s", where, _grouped(missing))


def read_state_dict(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Reads weights of any known wrapping as a flat dict of tensors on the CPU.

    Raises:
        DataError: if the file is missing, damaged, unsafe, or holds no tensors.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "state dict")
    path = Path(source).expanduser()
    if "://" in str(source):
        raise DataError(f"{source}: weights are not downloaded; fetch the file and give its path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_pickle(path) if path.suffix == ".pkl" else read_checkpoint(path)
    return _unwrap(content, str(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise DataError(f"{path}: reading it needs `pip install safetensors`") from error
    require_file(path)
    try:
        return _unwrap(load_file(path), str(path))
    except Exception as error:  # the library's own error type has no stable import
        raise DataError(f"{path} is damaged or no safetensors file") from error


def _unwrap(content: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise DataError(f"{where} holds a {type(content).__name__}, not a dict of tensors")
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _unwrap(content[key], where)
    state = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype != object:
            value = torch.from_numpy(np.array(value))
        if isinstance(value, Tensor):
            state[str(name)] = value
    if not state:
        raise DataError(f"{where} holds no tensors")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        for old, new in _RENAMED:
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


def _placed(state: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Puts weights of a bare backbone (ImageNet files) where the model keeps its backbone."""
    prefixed = {f"{_BACKBONE_PREFIX}{name}": value for name, value in state.items()}
    if not state.keys() & target.keys() and prefixed.keys() & target.keys():
        return prefixed
    return state


def _grouped(names: list[str]) -> str:
    """Names counted by their leading path, so that a whole missing part is one entry."""
    groups = Counter(".".join(name.split(".")[:-1][:_GROUP_DEPTH]) or name for name in names)
    return ", ".join(f"{group} ({count})" for group, count in sorted(groups.items()))
