"""Looks for what is wrong with a data set before a training finds out."""

from __future__ import annotations

from .data_sets import check_data_set, compare_data_sets
from .findings import KINDS, SEVERITIES, Finding, Findings, Kind
from .layouts import Layout, Need, look_at_layout, public_layouts
from .pictures import Effort

__all__ = [
    "KINDS",
    "SEVERITIES",
    "Effort",
    "Finding",
    "Findings",
    "Kind",
    "Layout",
    "Need",
    "check_data_set",
    "compare_data_sets",
    "look_at_layout",
    "public_layouts",
]
