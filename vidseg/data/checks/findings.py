"""What can be wrong with a data set: the kinds of defects, and what was found of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "SEVERITIES", "Finding", "Findings", "Kind", "listed"]

SEVERITIES = ("error", "warning", "note")
"""Training or evaluation stops or counts wrong; results may suffer; worth to know. Worst first."""


@dataclass(frozen=True)
class Kind:
    """A kind of defect.

    Args:
        severity: one of ``SEVERITIES``.
        meaning: what follows from it or what to do, as a phrase.
    """

    severity: str
    meaning: str


def _kinds(severity: str, **meanings: str) -> dict[str, Kind]:
    return {name.replace("_", "-"): Kind(severity, text) for name, text in meanings.items()}


KINDS: dict[str, Kind] = {
    # What nobody can read.
    **_kinds(
        "error",
        unreadable="the data set cannot be read at all",
        missing_key="an entry lacks what it must state",
        wrong_value="a value is of a kind that cannot be used",
        duplicate_id="two entries have the same id",
        length_mismatch="the stated length is not the number of frames",
        missing_frame="files of frames are not where they are looked for",
        damaged_frame="a picture cannot be decoded",
        frame_size="a picture has another size than stated",
        unknown_item="an annotation is of a video or image that is not listed",
        unknown_category="an annotation is of a class that is not listed",
        entry_count="an annotation has more or fewer entries than its video has frames",
        broken_mask="a mask is neither an RLE that covers its size nor polygons",
        mask_size="a mask has another size than its video or image",
        mask_transposed="the size of a mask is (width, height); masks are (height, width)",
        damaged_document="the files or the entry of a document cannot be used",
        feature_dim="files have another number of features than most",
        not_finite="features are NaN or infinite",
        damaged_video="a video cannot be decoded",
        classes_differ="an id stands for another class than in the first data set",
    ),
    # What can be read and is probably not meant.
    **_kinds(
        "warning",
        duplicate_class="two classes have the same name, but for case and spaces",
        outside_path="a file name leads out of the folder; the set works in this place alone",
        turned_frame="a picture is turned by its EXIF data; masks must fit the turned one",
        repeated_frame="a file is a frame of its video twice",
        frame_order="frames are not in the natural order of their names",
        shared_frame="a file is a frame of two videos or images",
        same_picture="files of two videos or images are equal byte by byte",
        short_polygon="polygons are no area; they are dropped",
        polygon_outside="polygons lie partly outside of the picture",
        empty_mask="a mask has no pixel; absent objects are null",
        never_visible="an object has no mask in any frame",
        full_mask="a mask covers the whole picture; it may be inverted",
        same_object="two objects have nearly the same masks",
        swapped_objects="two objects exchange their places from a frame to the next",
        box_mismatch="a box does not fit its mask; boxes are x, y, width, height",
        box_as_corners="boxes look like x0, y0, x1, y1; boxes are x, y, width, height",
        area_mismatch="a stated area does not fit its mask",
        annotation_size="an annotation states another size than its video",
        wrong_crowd="iscrowd is neither 0 nor 1",
        constant_document="all frames of a document have the same features",
        same_document="documents have the same features",
        cut_video="a video has fewer frames than its header announces",
        shared_data="two of the given data sets have videos, images or documents in common",
    ),
    # What may be all right.
    **_kinds(
        "note",
        no_annotations="the set cannot be trained on with labels, nor scored",
        no_objects="videos or images without any object",
        unused_class="classes without any object",
        single_frame_object="objects that are visible in one frame of their video only",
        blank_frame="pictures of one colour",
        still_frame="a picture is that of the frame before it, byte by byte",
        tiny_mask="masks of fewer than 4 pixels",
        id_zero="an annotation has the id 0, which other evaluators take for none",
        not_looked_into="only headers of files and entries were looked at",
    ),
}
"""By name; what ``Findings.add`` takes."""


@dataclass(frozen=True)
class Finding:
    """A defect.

    Args:
        kind: its name in ``KINDS``.
        where: what has it: a video, an annotation, a file.
        message: what it is.
        data_set: as the user named it.
    """

    kind: str
    where: str
    message: str
    data_set: str

    @property
    def severity(self) -> str:
        """Gives one of ``SEVERITIES``."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclass
class Findings:
    """Collects what is found in one data set.

    Args:
        data_set: as the user named it.

    Attributes:
        items: in the order in which they were found.
        counts: of what was looked at, by its name.
        prints: what identifies pictures and documents, with whose they are, to compare data sets.
        classes: names by id.
    """

    data_set: str
    items: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)
    classes: dict[Any, str] = field(default_factory=dict)

    def add(self, kind: str, where: str, message: str) -> None:
        """Adds a defect.

        Raises:
            KeyError: if there is no such kind.
        """
        KINDS[kind]
        self.items.append(Finding(kind, where, message, self.data_set))

    def by_kind(self) -> list[tuple[str, list[Finding]]]:
        """Gives kinds with what was found of them, worst first: severity, then number."""
        groups: dict[str, list[Finding]] = {}
        for item in self.items:
            groups.setdefault(item.kind, []).append(item)
        return sorted(
            groups.items(),
            key=lambda group: (SEVERITIES.index(KINDS[group[0]].severity), -len(group[1])),
        )

    def number_of(self, severity: str) -> int:
        """Gives how many findings have a severity."""
        return sum(item.severity == severity for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """Gives all of it, worst first."""
        return {
            "data_set": self.data_set,
            "looked_at": self.counts,
            "findings": [
                {
                    "severity": item.severity,
                    "kind": item.kind,
                    "where": item.where,
                    "message": item.message,
                }
                for _, group in self.by_kind()
                for item in group
            ],
        }


def listed(values: Iterable[Any], limit: int = 3) -> str:
    """Gives the first values as text, and how many more there are."""
    found = [str(value) for value in values]
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more
