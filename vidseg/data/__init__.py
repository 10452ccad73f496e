"""Data sets, transforms, mappers, samplers and loaders.

Names and files of data sets are available without torch; mappers and loaders bring it when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .catalog import DatasetCatalog, Metadata, Record, Records, dataset_root, is_path
from .ytvis import load_ytvis_json

if TYPE_CHECKING:
    from .clip_mapper import ClipMapper, PseudoClipMapper
    from .frame_files import load_frames
    from .loader import (
        build_pass_loader,
        build_test_loader,
        build_train_loader,
        check_mappers,
        check_num_classes,
        iterations_per_epoch,
    )
    from .mappers import DATASET_MAPPER_REGISTRY
    from .sample_loader import SampleLoader
    from .sequence_mapper import SequenceMapper

__all__ = [
    "DATASET_MAPPER_REGISTRY",
    "ClipMapper",
    "DatasetCatalog",
    "Metadata",
    "PseudoClipMapper",
    "Record",
    "Records",
    "SampleLoader",
    "SequenceMapper",
    "build_pass_loader",
    "build_test_loader",
    "build_train_loader",
    "check_mappers",
    "check_num_classes",
    "dataset_root",
    "is_path",
    "iterations_per_epoch",
    "load_frames",
    "load_ytvis_json",
]

_WITH_TORCH = {
    "clip_mapper": ("ClipMapper", "PseudoClipMapper"),
    "frame_files": ("load_frames",),
    "loader": (
        "build_pass_loader",
        "build_test_loader",
        "build_train_loader",
        "check_mappers",
        "check_num_classes",
        "iterations_per_epoch",
    ),
    "mappers": ("DATASET_MAPPER_REGISTRY",),
    "sample_loader": ("SampleLoader",),
    "sequence_mapper": ("SequenceMapper",),
}


def __getattr__(name: str) -> Any:
    for module, names in _WITH_TORCH.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
