"""What happens to each track in each frame: found, switched, missed, or false.

Frames are matched as CLEAR does, one to one at IoU 0.5, where whoever was matched before stays so.
Over the whole video tracks become partners one to one, so that partners meet in as many frames as
possible, as IDF1 does. Whoever meets another one than its partner is switched.

Shapes: T frames, G annotated tracks, P predicted tracks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidseg import rle as rle_ops
from vidseg.assignment import linear_sum_assignment
from vidseg.evaluation.tracking_metrics import MIN_IOU, TrackedSequence, clear_matches
from vidseg.rle import RLE

__all__ = ["ABSENT", "FALSE", "FOUND", "MISSED", "SWITCHED", "Confusions", "confusions", "overlaps"]

ABSENT, FOUND, SWITCHED, MISSED, FALSE = ".fsmx"
"""Letters of the states of a track in a frame."""

_EPSILON = float(np.finfo(np.float64).eps)

Masks = Sequence[RLE | None]
States = NDArray[np.str_]


@dataclass
class Confusions:
    """States of the tracks of a video, frame by frame.

    Args:
        truth: of annotated tracks, letters ``(G, T)``. Absent, found by its partner, switched:
            found by another prediction, or missed. A crowd is found or absent.
        found: of predicted tracks, letters ``(P, T)``. Absent, found: on its partner or a crowd,
            switched: on another annotated track, or false.
        partners: annotated track of each prediction. ``None`` if it has none; but one that has none
            and is on a crowd has the crowd that it is on most, which others may have, too.
    """

    truth: States
    found: States
    partners: list[int | None]

    def counts(self) -> dict[str, int]:
        """Gives how many frames annotated tracks are missed or switched, predictions false."""
        return {
            "missed": int((self.truth == MISSED).sum()),
            "switched": int((self.truth == SWITCHED).sum()),
            "false": int((self.found == FALSE).sum()),
        }


def confusions(
    sequence: TrackedSequence,
    *,
    truth_classes: Sequence[Hashable],
    found_classes: Sequence[Hashable],
    is_crowd: Sequence[bool],
) -> Confusions:
    """Finds the states of all tracks of a video; only tracks of one class are compared.

    Args:
        sequence: all tracks of the video.
        truth_classes: class of each annotated track, ``(G,)``.
        found_classes: class of each predicted track, ``(P,)``.
        is_crowd: annotated tracks that any number of predictions may be on, and that are never
            missed, ``(G,)``.
    """
    truth = np.where(sequence.truth_visible.T, MISSED, ABSENT)
    on = np.full(sequence.found_visible.shape, -1)  # annotated track that a prediction is on
    crowd = np.array(is_crowd, dtype=bool)
    for key in dict.fromkeys([*truth_classes, *found_classes]):
        rows, columns = (_equal(classes, key) for classes in (truth_classes, found_classes))
        counted = rows[~crowd[rows]]
        for frame, row, column in clear_matches(_part(sequence, counted, columns)):
            on[frame, columns[column]] = counted[row]
        _hit_crowds(sequence.overlaps, rows[crowd[rows]], columns, on)
    partners = _partners(on, crowd)
    is_right = (on == partners) | np.append(crowd, False)[on]
    found = np.where(on < 0, FALSE, np.where(is_right, FOUND, SWITCHED))
    found = np.where(sequence.found_visible, found, ABSENT).T
    truth[crowd] = ABSENT
    meeting = np.nonzero(on >= 0)
    truth[on[meeting], meeting[0]] = found.T[meeting]
    return Confusions(truth, found, [one if one >= 0 else None for one in partners.tolist()])


def overlaps(truth: Sequence[Masks], found: Sequence[Masks], length: int) -> TrackedSequence:
    """Compares the masks of tracks frame by frame; masks of different sizes do not overlap.

    Args:
        truth: masks of G annotated tracks; frames beyond the video's length are not looked at.
        found: of P predicted ones.
        length: T.
    """
    (_, in_truth), (_, in_found) = sides = [_visible(tracks, length) for tracks in (truth, found)]
    table = np.zeros((length, len(truth), len(found)))
    for frame in np.flatnonzero(in_truth.any(1) & in_found.any(1)).tolist():
        places = [np.flatnonzero(visible[frame]) for _, visible in sides]
        masks = [
            [masks[track][frame] for track in chosen.tolist()]
            for (masks, _), chosen in zip(sides, places, strict=True)
        ]
        table[frame][np.ix_(*places)] = rle_ops.iou(*masks)  # type: ignore[arg-type]
    return TrackedSequence(table, in_truth, in_found)


def _equal(values: Sequence[Hashable], wanted: Hashable) -> NDArray[np.int64]:
    return np.array([place for place, one in enumerate(values) if one == wanted], dtype=np.int64)


def _visible(tracks: Sequence[Masks], length: int) -> tuple[Sequence[Masks], NDArray[np.bool_]]:
    visible = np.zeros((length, len(tracks)), dtype=bool)
    for number, masks in enumerate(tracks):
        shown = [frame for frame, mask in enumerate(masks[:length]) if mask is not None]
        visible[shown, number] = rle_ops.area([masks[frame] for frame in shown]) > 0  # type: ignore[misc]
    return tracks, visible


def _part(
    sequence: TrackedSequence, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> TrackedSequence:
    return replace(
        sequence,
        overlaps=sequence.overlaps[:, rows][:, :, columns],
        truth_visible=sequence.truth_visible[:, rows],
        found_visible=sequence.found_visible[:, columns],
    )


def _hit_crowds(
    table: NDArray[np.float64],
    crowds: NDArray[np.int64],
    columns: NDArray[np.int64],
    on: NDArray[np.int64],
) -> None:
    """Puts predictions that are on no track of their own on the crowd that they overlap most."""
    if not len(crowds):
        return
    part = table[:, crowds][:, :, columns]
    is_hit = (part.max(1) >= MIN_IOU - _EPSILON) & (on[:, columns] < 0)
    on[:, columns] = np.where(is_hit, crowds[part.argmax(1)], on[:, columns])


def _partners(on: NDArray[np.int64], crowd: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Gives the partner of each prediction, -1 for none, ``(P,)``.

    Args:
        on: annotated track that each prediction is on, -1 for none, ``(T, P)``.
        crowd: which of them are crowds, ``(G,)``.
    """
    together = np.zeros((len(crowd), on.shape[1]), dtype=np.int64)  # frames in which they meet
    frames, columns = np.nonzero(on >= 0)
    np.add.at(together, (on[frames, columns], columns), 1)
    partners = np.full(on.shape[1], -1)
    if crowd.any():
        on_crowd = np.where(crowd[:, None], together, 0)
        partners = np.where(on_crowd.any(0), on_crowd.argmax(0), -1)
    together[crowd] = 0
    rows, chosen = linear_sum_assignment(together, maximize=True)
    meet = together[rows, chosen] > 0
    partners[chosen[meet]] = rows[meet]
    return partners
