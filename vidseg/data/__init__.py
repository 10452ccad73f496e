"""Data sets, transforms, mappers, samplers and loaders."""

from .catalog import DatasetCatalog, Metadata, Record, Records, dataset_root
from .clip_mapper import DATASET_MAPPER_REGISTRY, ClipMapper, PseudoClipMapper, load_frames
from .loader import SampleLoader, build_test_loader, build_train_loader, check_num_classes
from .ytvis import load_ytvis_json

__all__ = [
    "DATASET_MAPPER_REGISTRY",
    "ClipMapper",
    "DatasetCatalog",
    "Metadata",
    "PseudoClipMapper",
    "Record",
    "Records",
    "SampleLoader",
    "build_test_loader",
    "build_train_loader",
    "check_num_classes",
    "dataset_root",
    "load_frames",
    "load_ytvis_json",
]
