"""Looks for what is wrong with a data set before a training finds out."""

from __future__ import annotations

from .data_sets import check_data_set, compare_data_sets
from .findings import KINDS, SEVERITIES, Finding, Findings, Kind
from .pictures import Effort

__all__ = [
    "KINDS",
    "SEVERITIES",
    "Effort",
    "Finding",
    "Findings",
    "Kind",
    "check_data_set",
    "compare_data_sets",
]
