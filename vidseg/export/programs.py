"""One part of a model as a torch.export program and as an ONNX file, and what loads these."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidseg.errors import UserError
from vidseg.modeling.meta_arch import ExportPart, FrameSize

__all__ = ["Runner", "check_packages", "load_onnx", "load_program", "record", "write_onnx"]

Runner = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Runs a graph: inputs by name to outputs by name, tensors of the CPU."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LARGEST_FILE = 1800 * 2**20  # a single ONNX file must stay below 2 GiB


def check_packages() -> None:
    """Checks that what ONNX takes is installed.

    Raises:
        UserError: if not.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX files need {', '.join(missing)}: pip install 'vidseg[export]', or choose"
            " --format torch"
        )


def record(part: ExportPart, size: FrameSize, *, is_dynamic: bool) -> torch.export.ExportedProgram:
    """Records the graph of a part.

    Args:
        part: to record.
        size: of the example frames.
        is_dynamic: whether the sizes that the part calls dynamic may differ from the example's.

    Raises:
        UserError: if the model computes something that no graph can hold, or its graph depends on
            a size that is to be dynamic.
    """
    inputs = part.make_inputs(size)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(
                part.module,
                tuple(inputs.values()),
                dynamic_shapes=_dynamic_shapes(part, inputs) if is_dynamic else None,
                strict=False,
            )
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if is_dynamic:
            raise UserError(
                f"the {part.name} of this model is another graph for every size of frames"
                f" ({reason}); give one, as --size 480x640"
            ) from error
        raise UserError(f"the {part.name} cannot be exported ({reason})") from error


def write_onnx(part: ExportPart, program: torch.export.ExportedProgram, file: Path) -> None:
    """Writes a recorded graph as an ONNX file; weights beyond 2 GB go to a file beside it.

    Raises:
        UserError: if ONNX has no words for one of its operations.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    with _quiet():
        try:
            converted: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=part.input_names,
                output_names=part.output_names,
                verbose=False,
            )
        except RuntimeError as error:
            reason = next(iter(str(error.__cause__ or error).strip().splitlines()), "")
            raise UserError(
                f"torch {torch.__version__} cannot write the {part.name} as ONNX ({reason}); try a"
                " newer torch, or --format torch"
            ) from error
        converted.save(str(file), external_data=size > _LARGEST_FILE)


def load_program(file: Path, part: ExportPart) -> Runner:
    """Loads a torch.export program, as who deploys it would."""
    module = torch.export.load(file).module()

    @torch.no_grad()
    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(part.output_names, module(*inputs.values()), strict=True))

    return run


def load_onnx(file: Path, part: ExportPart) -> Runner:
    """Loads an ONNX file into onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(None, {name: value.cpu().numpy() for name, value in inputs.items()})
        return {
            name: torch.from_numpy(value)
            for name, value in zip(part.output_names, found, strict=True)
        }

    return run


def _dynamic_shapes(part: ExportPart, inputs: dict[str, Tensor]) -> Any:
    """Says which sizes may vary, in the nesting of the arguments of the module."""
    sizes = {name: None for axes in part.dynamic.values() for name in axes.values()}
    dims = {name: torch.export.Dim(name, min=part.least.get(name, 1)) for name in sizes}
    shapes = [
        {axis: dims[name] for axis, name in part.dynamic.get(given, {}).items()} for given in inputs
    ]
    return _nested(part.module.forward, shapes)


def _nested(forward: Any, shapes: list[Any]) -> Any:
    """Puts what goes into ``*args`` of a function into a tuple of its own."""
    import inspect

    parameters = inspect.signature(forward).parameters.values()
    plain = sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)
    rest = shapes[plain:]
    return (*shapes[:plain], tuple(rest)) if plain < len(parameters) else tuple(shapes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what torch's exporters tell their developers."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
