"""Writes what a model offers as graphs, checks them and describes them in ``export.json``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vidseg import plugins
from vidseg.config import CfgNode
from vidseg.errors import UserError
from vidseg.files import draft_suffix, make_folder, remove_stale_drafts
from vidseg.modeling import META_ARCH_REGISTRY
from vidseg.modeling.meta_arch import ExportOptions, ExportPart, FrameSize
from vidseg.predictor import VideoPredictor

from .checking import Comparison, compare
from .description import describe, describe_part
from .programs import load_onnx, load_program, record, write_onnx

__all__ = ["FORMATS", "ExportRequest", "Exported", "check_exports", "export_model"]

FORMATS = {"torch": ".pt2", "onnx": ".onnx"}


@dataclass(frozen=True)
class ExportRequest:
    """What is written.

    Args:
        formats: some of ``FORMATS``.
        size: of the frames; ``None``: the graphs take any number of frames of any size.
        options: for the model.
    """

    formats: tuple[str, ...] = ("torch",)
    size: FrameSize | None = None
    options: ExportOptions = field(default_factory=ExportOptions)


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how far from the model it is for frames of some sizes."""

    path: Path
    comparisons: list[Comparison]


def check_exports(cfg: CfgNode) -> None:
    """Checks that the model of a config has parts that can be exported, before it is built.

    Raises:
        UserError: if it has none, or there is no such model.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if hasattr(META_ARCH_REGISTRY.get(name), "export_parts"):
        return
    plugins.load_components()
    able = [other for other, made in META_ARCH_REGISTRY if hasattr(made, "export_parts")]
    raise UserError(
        f"MODEL.META_ARCHITECTURE {name} has no parts that can be exported; these have:"
        f" {', '.join(sorted(able))}"
    )


def export_model(
    predictor: VideoPredictor, folder: Path, request: ExportRequest
) -> Iterator[Exported]:
    """Writes the graphs of a model and ``export.json``, which replace those of the same names.

    Args:
        predictor: has the model, on the CPU, and knows the classes and the frames' size.
        folder: made if it is not there.
        request: what is written.

    Yields:
        Each file as soon as it is checked. All appear in the folder together, after the last.

    Raises:
        UserError: if a graph cannot be made or written.
    """
    model: Any = predictor.model
    sizes = [request.size] if request.size is not None else _example_sizes(predictor)
    parts = model.export_parts(request.options)
    with _published(folder) as draft:
        described = []
        for part in parts:
            files = {}
            for exported in _export_part(part, draft, sizes, request):
                files[exported.path.suffix] = exported.path.name
                yield Exported(folder / exported.path.name, exported.comparisons)
            names = {kind: files[FORMATS[kind]] for kind in request.formats}
            described.append(describe_part(part, names, sizes))
        text = json.dumps(describe(predictor, described), indent=1)
        (draft / "export.json").write_text(text + "\n")


def _export_part(
    part: ExportPart, folder: Path, sizes: list[FrameSize], request: ExportRequest
) -> Iterator[Exported]:
    """Records the graph of a part once; writes and checks it in every format."""
    program = record(part, sizes[0], is_dynamic=request.size is None)
    writers: dict[str, tuple[Callable[[Path], object], Callable[..., Any]]] = {
        "torch": (lambda file: torch.export.save(program, file), load_program),
        "onnx": (lambda file: write_onnx(part, program, file), load_onnx),
    }
    for kind in request.formats:
        write, load = writers[kind]
        file = folder / f"{part.name}{FORMATS[kind]}"
        write(file)
        yield Exported(file, compare(part, load(file, part), sizes))


def _example_sizes(predictor: VideoPredictor) -> list[FrameSize]:
    """Gives the sizes at which graphs for frames of any size are recorded, and checked."""
    short = predictor.min_size or 480
    long = min(round(short * 4 / 3), max(predictor.max_size, short))
    return [FrameSize(2, short, long), FrameSize(1, long + 53, max(short // 2, 40))]


@contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """Gives a folder beside the results whose files move there when all are written."""
    make_folder(folder, "--output: the folder")
    remove_stale_drafts(folder)
    draft = Path(tempfile.mkdtemp(draft_suffix(), ".export.", folder))
    try:
        yield draft
        # The description last: with it, everything that it names is there.
        for file in sorted(draft.iterdir(), key=lambda file: file.suffix == ".json"):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
