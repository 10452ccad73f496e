"""What a file of weights and a model had in common, and why the rest did not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["LoadReport", "grouped"]

Shape = tuple[int, ...]

_MAX_GROUPS = 6
_CLASSIFIERS = ("fc", "fc1000", "head", "classifier", "pred", "linear")
_CLASSIFICATION = ("class_embed.weight", "class_embed.bias")
_CLASS_COUNTS = (*_CLASSIFICATION, "empty_weight")
_QUERIES = ("query_feat.weight", "query_embed.weight")
_COUNTERS = "BatchNorm counters"
_CONSTANTS = ("relative_position_index", "attn_mask")
_CONSTANT = "constants, which need no file"
_LOSS = "of the loss, set by the config"
_EXPECTED = "expected"
_CLASSIFIER = "classifier of an ImageNet file"
_ONE_LINE = (_COUNTERS, _CONSTANT, _CLASSIFIER)


@dataclass
class LoadReport:
    """What a file and a model had in common.

    Attributes:
        missing: parameters and buffers of the model that the file does not have.
        unexpected: names in the file that the model does not have.
        mismatched: name to (shape in the file, shape in the model); these were not loaded.
        num_loaded: how many tensors were copied.
        absent_parts: first parts of names (``refiner``) of which the file has nothing.
        backbone_only: the file held the weights of a bare backbone.
        naming: whose names a bare backbone has in the file, see ``vidseg.checkpoint.naming``.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    num_loaded: int = 0
    absent_parts: list[str] = field(default_factory=list)
    backbone_only: bool = False
    naming: str = ""

    @property
    def class_counts(self) -> tuple[int, int] | None:
        """Classes in the file and in the model, if these differ; "no object" is not counted."""
        for name, (theirs, ours) in self.mismatched.items():
            if name.endswith(_CLASSIFICATION) and theirs[1:] == ours[1:]:
                return theirs[0] - 1, ours[0] - 1
        return None

    def summary(self) -> str:
        """Describes the report in aligned lines: what, which names (how many), and why."""
        rows = [
            *_rows(
                "other shape", ((n, self._why_other(*s, n)) for n, s in self.mismatched.items())
            ),
            *_rows("not in the file", ((name, self._why_missing(name)) for name in self.missing)),
            *_rows("only in the file", ((n, self._why_unexpected(n)) for n in self.unexpected)),
        ]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = [
            f"  {kind:{widths[0]}}  {names:{widths[1]}}  {reason}".rstrip()
            for kind, names, reason in rows
        ]
        return "\n".join([f"{self.num_loaded} tensors loaded", *lines])

    def _why_other(self, theirs: Shape, ours: Shape, name: str) -> str:
        if name.endswith(_CLASS_COUNTS) and theirs[1:] == ours[1:]:
            return f"another class count: {theirs[0] - 1} in the file, {ours[0] - 1} here"
        if name.endswith(_QUERIES) and theirs[1:] == ours[1:]:
            return f"another number of queries: {theirs[0]} in the file, {ours[0]} here"
        return f"{theirs} in the file, {ours} here"

    def _why_missing(self, name: str) -> str:
        if reason := _why_not_shared(name):
            return reason
        part = name.partition(".")[0]
        if part in self.absent_parts:
            if self.backbone_only:
                return f"a file of backbone weights: {_EXPECTED}"
            return f"a file of an earlier stage has no {part}: {_EXPECTED}"
        return "stays as initialised"

    def _why_unexpected(self, name: str) -> str:
        if reason := _why_not_shared(name):
            return reason
        if name.startswith(("pixel_mean", "pixel_std")):
            return "set by the config"
        words = name.removeprefix("backbone.").removeprefix("stem.").replace("_", ".").split(".")
        if self.backbone_only and words[0] in _CLASSIFIERS:
            return _CLASSIFIER
        return "not in the model"


def grouped(names: Iterable[str]) -> list[str]:
    """Counts names by their module, as deep as a few lines allow: ``refiner.decoder_norm (2)``."""
    names = list(names)
    for depth in (3, 2, 1):
        counts = Counter(_module(name, depth) for name in names)
        if len(counts) <= _MAX_GROUPS:
            break
    return [f"{module} ({count})" for module, count in sorted(counts.items())]


def _why_not_shared(name: str) -> str:
    """Says why a file and a model need not both have a buffer; "" if they should."""
    if name.endswith("num_batches_tracked"):
        return _COUNTERS
    if name.endswith(_CONSTANTS):
        return _CONSTANT
    return _LOSS if name.endswith("empty_weight") else ""


def _module(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:-1][:depth]) or name


def _rows(kind: str, entries: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Gives rows of what, which names and why, in the order of the reasons."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in entries:
        by_reason.setdefault(reason, []).append(name)
    rows = []
    for reason, names in by_reason.items():
        if reason in _ONE_LINE or reason.endswith(_EXPECTED):
            parts = sorted({name.partition(".")[0] for name in names})
            rows.append((kind, f"{', '.join(parts)} ({len(names)})", reason))
        else:
            rows += [(kind, group, reason) for group in grouped(names)]
    return rows
