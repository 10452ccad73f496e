"""What a run says about itself: log files, versions, sizes."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import vidseg
from vidseg.collectives import rank, world_size
from vidseg.files import make_folder

from .data_checks import check_feature_dim

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata, Records

__all__ = ["describe_data", "describe_environment", "describe_model", "log_to"]

logger = logging.getLogger(__name__)

_FORMAT = "[%(asctime)s %(name)s] %(message)s"
_LEVEL_FORMAT = "[%(asctime)s %(name)s] %(levelname)s: %(message)s"


class _Formatter(logging.Formatter):
    """Names the level where it is not the usual one."""

    def __init__(self) -> None:
        super().__init__(_FORMAT, "%m/%d %H:%M:%S")
        self._loud = logging.Formatter(_LEVEL_FORMAT, "%m/%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno > logging.INFO:
            return self._loud.format(record)
        return super().format(record)


class _TellsOnce(logging.Handler):
    """Says once that lines cannot be written, e.g. on a full disk, and lets the run go on."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told and not isinstance(error, BrokenPipeError):
            self._told = True
            place = getattr(self, "baseFilename", "standard output")
            with contextlib.suppress(OSError):
                print(f"error: {place}: {error.strerror}; the run goes on", file=sys.stderr)


class _LogFileHandler(_TellsOnce, logging.FileHandler):
    """Writes ``log.txt``."""


class _ConsoleHandler(_TellsOnce, logging.StreamHandler):  # type: ignore[type-arg]
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.write(self.format(record), file=sys.stdout)
            return
        self.stream = sys.stdout  # whatever stands there now: tests and notebooks replace it
        super().emit(record)


@contextlib.contextmanager
def log_to(directory: Path | None) -> Iterator[None]:
    """Sends what vidseg logs to the console and to ``log.txt`` inside the context.

    Args:
        directory: run directory; None for the console alone. Ranks above 0 write warnings to a
            file of their own and nothing to the console.
    """
    handlers: list[logging.Handler] = []
    if rank() == 0:
        handlers.append(_ConsoleHandler(sys.stdout))
    if directory is not None:
        make_folder(directory, "OUTPUT_DIR")
        name = "log.txt" if rank() == 0 else f"log.rank{rank()}.txt"
        handlers.append(_LogFileHandler(directory / name, delay=rank() > 0, encoding="utf-8"))
    log = logging.getLogger(vidseg.__name__)
    level = log.level
    log.setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    for handler in handlers:
        handler.setFormatter(_Formatter())
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(level)
        for handler in handlers:
            log.removeHandler(handler)
            with contextlib.suppress(OSError):  # told before, by the line that was not written
                handler.close()


def describe_environment(device: torch.device) -> str:
    """Gives versions and device in one line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return (
        f"vidseg {vidseg.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.system()}; device {device} ({name}), "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} CPUs, {world_size()} process(es)"
    )


def describe_model(name: str, model: nn.Module) -> str:
    """Gives the parameter counts in one line."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"model {name}: {total:,} parameters, {trainable:,} trainable"


def describe_data(cfg: CfgNode) -> str:
    """Gives sizes and classes of the data sets, one line each; loads them.

    Raises:
        UserError: if a data set is missing, or has more classes or another width than the model.
    """
    from vidseg.data import DatasetCatalog, check_num_classes

    lines = []
    for purpose, names in (("train", cfg.DATASETS.TRAIN), ("test", cfg.DATASETS.TEST)):
        for name in names:
            records = DatasetCatalog.read(name) if purpose == "test" else DatasetCatalog.get(name)
            lines.append(
                f"{purpose} {name}: {_describe_set(records, DatasetCatalog.metadata(name))}"
            )
            if purpose == "test":
                check_num_classes(cfg, name)
                check_feature_dim(cfg, name)
                lines += _describe_damage(records.damaged)
    return "\n".join(lines)


def _describe_set(records: Records, metadata: Metadata) -> str:
    parts = [f"{len(records)} {metadata.item}s"]
    if metadata.feature_dim:
        num_frames = sum(record["length"] for record in records)
        parts.append(f"{num_frames:,} frames of {metadata.feature_dim} features")
    if metadata.topics:
        parts.append(f"{len(metadata.topics)} topics: {_some(metadata.topics)}")
    if metadata.classes or not metadata.feature_dim:
        parts.append(f"{len(metadata.classes)} classes: {_some(metadata.classes)}")
    return ", ".join(parts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _describe_damage(damaged: Mapping[Any, str]) -> list[str]:
    """Gives a line on the videos that evaluations will have to leave out, if there are any."""
    return [f"  {len(damaged)} of them damaged: {reason}" for reason in damaged.values()][:1]
