"""Trained models as graphs that run without vidseg: torch.export programs and ONNX files."""

from .export import FORMATS, Exported, ExportRequest, check_exports, export_model
from .programs import check_packages

__all__ = [
    "FORMATS",
    "ExportRequest",
    "Exported",
    "check_exports",
    "check_packages",
    "export_model",
]
