"""Saving runs so that they continue exactly, and loading weights of many origins."""

from .addresses import find_run_weights, find_weights
from .checkpointer import Checkpointer
from .naming import CAFFE2, EXPECTATIONS, TORCHVISION, naming_of
from .upstream import LoadReport, check_complete, load_weights, read_state_dict

__all__ = [
    "CAFFE2",
    "EXPECTATIONS",
    "TORCHVISION",
    "Checkpointer",
    "LoadReport",
    "check_complete",
    "find_run_weights",
    "find_weights",
    "load_weights",
    "naming_of",
    "read_state_dict",
]
