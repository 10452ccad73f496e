"""Loading weights of our own runs and of published files into a model.

Names are taken as they are; only the wrapping differs between files: a dict under ``model`` or
``state_dict``, a ``module.`` prefix of data-parallel training, arrays instead of tensors. A file
without any name of the model holds a bare backbone, which renames it (``match_names``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidseg.errors import DataError, UserError

from .addresses import find_weights
from .files import read_checkpoint
from .naming import naming_of
from .pickles import read_pickle
from .report import LoadReport, grouped

__all__ = ["LoadReport", "check_complete", "load_weights", "read_state_dict"]

logger = logging.getLogger(__name__)

Place = Callable[[dict[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]

_WRAPPERS = ("model", "state_dict", "model_state_dict", "blobs")
_MAX_WRAPPERS = 3
# Head format before version 2 of the published checkpoints.
_RENAMED = (("static_query", "query_feat"),)
_BACKBONE = "backbone"


def load_weights(
    model: nn.Module, source: str | Path | Mapping[str, Any], *, place: Place | None = None
) -> LoadReport:
    """Copies every tensor that fits from a file or state dict into the model.

    Args:
        model: changed in place; its device and dtypes stay.
        source: a path to ``.pth``, ``.pt``, ``.safetensors`` or a detectron2 ``.pkl``, or what such
            a file holds.
        place: renames weights of which the model knows no name, even as those of its backbone;
            called with them and with what the model holds.

    Returns:
        What was missing, unexpected and of another shape. The same is logged.

    Raises:
        DataError: if the file is missing, damaged or unsafe, or not one name fits the model.
    """
    where = str(source) if isinstance(source, str | Path) else "state dict"
    target = model.state_dict()
    state = _renamed(read_state_dict(source))
    report = LoadReport(backbone_only=not state.keys() & target.keys())
    if report.backbone_only:
        report.naming = naming_of(state)
        state = _placed(state, model, target)
        if place is not None and not state.keys() & target.keys():
            state = place(state, target)
    report.missing = [name for name in target if name not in state]
    report.absent_parts = _absent_parts(state, target)
    fitting = {}
    for name in (name for name in target if name in state):
        if state[name].shape != target[name].shape:
            report.mismatched[name] = (tuple(state[name].shape), tuple(target[name].shape))
        else:
            fitting[name] = state[name]
    if not fitting:
        example = next(iter(state), "nothing")
        raise DataError(
            f"{where} does not fit the model: no name and shape in common (the file has {example}, "
            f"the model {next(iter(target), 'nothing')})"
        )
    others = {name: state[name] for name in state if name not in target}
    # A module may take names that it does not keep, such as a table that it computes itself.
    report.unexpected = model.load_state_dict({**fitting, **others}, strict=False).unexpected_keys
    report.num_loaded = len(fitting)
    level = logging.WARNING if report.mismatched else logging.INFO
    logger.log(level, "weights of %s: %s", where, report.summary())
    if report.class_counts:
        theirs, ours = report.class_counts
        logger.warning(
            "%s knows %d classes, this model %d (MODEL.SEM_SEG_HEAD.NUM_CLASSES): its classifier "
            "starts at random",
            where,
            theirs,
            ours,
        )
    return report


def check_complete(report: LoadReport, model: nn.Module, where: str | Path) -> None:
    """Checks that a model which is not trained any further got its weights.

    Args:
        report: of loading the weights.
        model: that they were loaded into.
        where: the file, for messages.

    Raises:
        UserError: if the file gave nothing to a whole part (``backbone``, ``tracker``), or has
            parameters of other shapes; single parameters that it lacks are logged as a warning.
    """
    absent = {*report.missing, *report.mismatched}
    parts: dict[str, list[str]] = {}
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for name in every:
        part, dot, _ = name.partition(".")
        if dot:
            parts.setdefault(part, []).append(name)
    lacking = [part for part, names in parts.items() if absent.issuperset(names)]
    if lacking:
        raise UserError(
            f"{where} has no weights for {', '.join(lacking)} of {type(model).__name__}; give the "
            "weights of a finished run of this config, or use the config that made the file"
        )
    if report.class_counts:
        theirs, ours = report.class_counts
        raise UserError(
            f"{where} knows {theirs} classes and MODEL.SEM_SEG_HEAD.NUM_CLASSES is {ours}; set it "
            f"to {theirs}, or use the config that made the file"
        )
    wrong = [name for name in every if name in report.mismatched]
    if wrong:
        raise UserError(
            f"{where} has other shapes for {', '.join(grouped(wrong))} of {type(model).__name__}; "
            "use the config that made the file"
        )
    missing = [name for name in every if name in report.missing]
    if missing:
        logger.warning(
            "%s lacks parameters, left at random: %s", where, ", ".join(grouped(missing))
        )


def read_state_dict(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Reads weights of any known wrapping as a flat dict of tensors on the CPU.

    Raises:
        DataError: if the file is missing, damaged, unsafe, or holds no tensors.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "state dict")
    path = find_weights(source)
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    elif path.suffix == ".pkl":
        content = read_pickle(path)
    else:
        content = read_checkpoint(path)
    return _unwrap(content, str(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise DataError(f"{path}: reading it needs `pip install safetensors`") from error
    try:
        return load_file(path)
    except Exception as error:  # the library's own error type has no stable import
        raise DataError(f"{path} is damaged or no safetensors file") from error


def _unwrap(content: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise DataError(f"{where} holds a {type(content).__name__}, not a dict of tensors")
    for _ in range(_MAX_WRAPPERS):
        inner = (content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping))
        content = next(inner, content)
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


def _placed(
    state: dict[str, Tensor], model: nn.Module, target: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Puts weights of a bare backbone (ImageNet files) where the model keeps its backbone."""
    match_names = getattr(getattr(model, _BACKBONE, model), "match_names", None)
    matched = match_names(state) if match_names is not None else state
    if matched.keys() & target.keys():  # the model is a backbone itself
        return matched
    placed = {f"{_BACKBONE}.{name}": value for name, value in matched.items()}
    return placed if placed.keys() & target.keys() else state


def _absent_parts(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> list[str]:
    found = {name.partition(".")[0] for name in state}
    wanted = dict.fromkeys(name.partition(".")[0] for name in target)
    return [part for part in wanted if part not in found]
