"""Saving runs so that they continue exactly, and loading weights of many origins."""

from .checkpointer import Checkpointer
from .upstream import LoadReport, check_complete, load_weights, read_state_dict

__all__ = ["Checkpointer", "LoadReport", "check_complete", "load_weights", "read_state_dict"]
