"""What the page is told: figures, tables, ranking and videos, as json holds them.

Numbers that are undefined or infinite become ``None``. Figures and tables hold percentages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import vidseg
from vidseg.evaluation.report import in_percent

__all__ = [
    "CONFUSION_NOTE",
    "Limits",
    "Payload",
    "empty_payload",
    "facts",
    "figures",
    "number",
    "ranking",
    "table",
    "track",
    "videos",
]

Payload = dict[str, Any]

MAX_SIDE = 320  # pixels of the longer side of pictures and masks
MAX_BYTES = 24 << 20  # of all videos together
DIGITS = 4  # after the point

CONFUSION_NOTE = (
    "Confusions are counted in frames. In each frame annotations and predictions of one class are"
    " matched one to one at IoU 0.5, and whoever was matched before stays so. Over the whole video"
    " tracks become partners one to one, so that partners meet in as many frames as possible. Who"
    " meets its partner is found, who meets another one is switched; an annotation that meets"
    " nobody is missed, a prediction that meets nobody is false."
)


@dataclass(frozen=True)
class Limits:
    """How much of a data set the player of a report shows.

    Args:
        videos: at most, the worst first.
        frames: of each video at most, evenly spaced.
    """

    videos: int = 20
    frames: int = 36

    def frames_of(self, length: int) -> list[int]:
        """Chooses frames of a video, the first and the last among them."""
        count = min(length, self.frames)
        if count == 1:
            return [length // 2]
        return np.linspace(0, length - 1, count).round().astype(int).tolist()


def empty_payload(title: str, metric: str) -> Payload:
    """Gives a payload without anything to show."""
    return {
        "version": 1,
        "title": title,
        "metric": metric,
        "facts": [],
        "figures": [],
        "tables": [],
        "classes": None,
        "curves": [],
        "ranking": {"columns": [], "rows": []},
        "notes": [],
        "classNames": [],
        "videos": [],
    }


def facts(told: Mapping[str, Any]) -> list[list[str]]:
    """Gives names and values that tell what was scored, and by which version."""
    values = {**told, "vidseg": vidseg.__version__}
    return [[name, str(value)] for name, value in values.items()]


def number(value: float | None) -> float | int | None:
    """Gives a number that json can hold, rounded; ``None`` if it is undefined or infinite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = round(float(value), DIGITS)
    return int(rounded) if rounded.is_integer() else rounded


def figures(
    values: Mapping[str, float], names: Sequence[str], *, plain: Sequence[str] = ()
) -> list[Payload]:
    """Gives headline figures.

    Args:
        values: fractions by name.
        names: which of them.
        plain: those that are no fractions.
    """
    known = in_percent({name: values[name] for name in names}, plain=plain)
    return [
        {
            "name": name,
            "value": number(value),
            "unit": "" if name in plain else "%",
            "help": HELP.get(name, HELP.get(name.partition("/")[2], "")),
        }
        for name, value in known.items()
    ]


def table(
    title: str,
    key: str,
    rows: Mapping[Any, Mapping[str, float]],
    columns: Sequence[str],
    *,
    plain: Sequence[str] = (),
) -> Payload:
    """Gives a table with a row for each class or video.

    Args:
        title: of the table.
        key: what the names of the rows are.
        rows: fractions by name, by the name of the row.
        columns: names of the figures to show.
        plain: those that are no fractions.
    """
    lines = [[str(name), *_cells(row, columns, plain)] for name, row in rows.items()]
    return {"title": title, "columns": [key, *columns], "rows": lines}


def ranking(
    rows: Mapping[Any, Mapping[str, float]],
    columns: Sequence[str],
    *,
    names: Mapping[Any, str] | None = None,
    plain: Sequence[str] = (),
) -> Payload:
    """Ranks videos, those with the lowest first figure first.

    Among equals, the one with more confusions comes first, then the one that was given first. A
    video whose first figure is undefined has nothing to find; such videos come last.

    Args:
        rows: fractions and counts by name, by video.
        columns: names of the figures to show; the first one ranks.
        names: of the videos, if they are not their keys.
        plain: columns that are no fractions.
    """

    def place(item: tuple[Any, Mapping[str, float]]) -> tuple[bool, float, float]:
        first = item[1][columns[0]]
        confused = sum(item[1].get(name, 0) for name in ("missed", "switched", "false"))
        return math.isnan(first), 0.0 if math.isnan(first) else first, -confused

    ranked = sorted(rows.items(), key=place)
    return {
        "columns": list(columns),
        "rows": [
            {
                "id": str(key),
                "name": (names or {}).get(key, str(key)),
                "values": _cells(row, columns, plain),
                "video": None,
            }
            for key, row in ranked
        ],
    }


def videos(payload: Payload, read: Callable[[str], Payload], limits: Limits) -> None:
    """Adds the worst videos of the ranking to a payload, as many as it may hold, and says so.

    Args:
        payload: its ranking is there.
        read: gives a video by its id in the ranking.
        limits: how many.
    """
    size, too_large = 0, 0
    rows = payload["ranking"]["rows"]
    for row in rows:
        if len(payload["videos"]) + too_large >= limits.videos:
            break
        video = read(row["id"])
        added = len(json.dumps(video))
        if size + added > MAX_BYTES:
            too_large += 1
            continue
        size += added
        row["video"] = len(payload["videos"])
        payload["videos"].append(video)
    shown = len(payload["videos"])
    if shown < len(rows):
        payload["notes"].append(
            f"The player has {shown} of {len(rows)} videos, the worst ones"
            + (f" but for {too_large} that would make this page too large." if too_large else ".")
        )
    if any(len(video["frames"]) < video["length"] for video in payload["videos"]):
        payload["notes"].append(
            f"Of longer videos the player has {limits.frames} frames, evenly spaced; the"
            " timelines have all."
        )


def track(
    *,
    id: Any,
    class_index: int,
    label: str,
    masks: Sequence[list[int] | None],
    states: Iterable[str],
    **more: Any,
) -> Payload:
    """Gives a track of a video.

    Args:
        id: for tooltips.
        class_index: place in ``classNames``.
        label: name that is shown.
        masks: runs per shown frame.
        states: a letter per frame of the video.
        more: ``crowd`` of an annotation; ``score`` and ``partner`` of a prediction.
    """
    told = {"id": str(id), "class": class_index, "label": label, **more}
    return {**told, "masks": list(masks), "states": "".join(states)}


def _cells(
    row: Mapping[str, float], columns: Sequence[str], plain: Sequence[str]
) -> list[float | int | None]:
    values = in_percent({name: row[name] for name in columns}, plain=plain)
    return [number(value) for value in values.values()]


HELP = {
    "AP": "mean over classes and IoU thresholds 0.50 to 0.95",
    "AP50": "at tube IoU 0.50",
    "AP75": "at tube IoU 0.75",
    "APs": "tracks up to 128² pixels",
    "APm": "tracks of 128² to 256² pixels",
    "APl": "tracks from 256² pixels on",
    "APso": "lightly occluded tracks",
    "APmo": "partly occluded tracks",
    "APho": "heavily occluded tracks",
    "AR1": "recall with one prediction per video and class",
    "AR10": "recall with ten predictions per video and class",
    "AR100": "recall with a hundred predictions per video and class",
    "HOTA": "geometric mean of DetA and AssA",
    "DetA": "detection, mean over thresholds",
    "AssA": "association, mean over thresholds",
    "LocA": "overlap of what was matched",
    "MOTA": "1 - (missed + false + switched) / annotated",
    "MOTP": "overlap of matches at IoU 0.5",
    "IDSW": "switches of identity",
    "Frag": "interruptions of tracks",
    "IDF1": "F1 of identities that last",
    "IDR": "recall of identities",
    "IDP": "precision of identities",
    "VPQ": "mean over windows of 1 to 8 frames",
    "VPQ_things": "VPQ of what can be counted",
    "VPQ_stuff": "VPQ of what has no instances",
    "STQ": "geometric mean of AQ and IoU",
    "AQ": "association of segments",
    "IoU": "mean over classes of pixels",
    "mIoU": "mean overlap",
    "fwIoU": "weighted by the frequency of classes",
    "Acc": "pixels of the right class",
    "Acc_class": "the same, mean over classes",
    "VC8": "steady pixels in windows of 8 frames",
    "VC16": "steady pixels in windows of 16 frames",
    "J&F": "mean of region and boundary",
    "J": "overlap of regions",
    "F": "agreement of boundaries",
    "J-Recall": "frames in which J is above 0.5",
    "F-Recall": "frames in which F is above 0.5",
    "J-Decay": "loss of J from the first to the last quarter",
    "F-Decay": "loss of F from the first to the last quarter",
    "FG-ARI": "agreement of groups of pixels of objects",
    "FG-ARI_empty_is_1": "the same, 1 where there is no object",
    "ARI": "agreement of groups of all pixels",
    "mBO": "overlap of each object with its best slot",
    "consistency": "neighbouring frames in which an object keeps its slot",
    "switches": "changes of slot per object",
    "return": "returns of hidden objects to the slot that they had",
    "majority_share": "frames of an object in the slot that has it most",
}
