"""HOTA, CLEAR and Identity: how well predicted tracks follow annotated ones, frame by frame.

Each metric first counts in one sequence. Counts of several sequences, or classes, are added; what
the metric reports are ratios of the sums.

Sources: HOTA, Luiten et al. (IJCV 129, 2021), sections 5 and 6; CLEAR MOT, Bernardin and
Stiefelhagen (EURASIP 2008), section 2.1.3, with sMOTA of Voigtlaender et al. (CVPR 2019); IDF1,
Ristani et al. (ECCVW 2016), section 3. Ties and empty sequences are treated as TrackEval does.

Shapes: T frames, G annotated tracks, P predicted tracks, A localisation thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.assignment import linear_sum_assignment

__all__ = [
    "ALPHAS",
    "FAMILIES",
    "Counts",
    "MetricFamily",
    "TrackedSequence",
    "add_counts",
    "clear_matches",
    "clear_metrics",
    "count_clear",
    "count_hota",
    "count_identity",
    "hota_curves",
    "hota_metrics",
    "identity_metrics",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = dict[str, Floats]
"""Sums by name: ``(A,)`` for HOTA, scalars else."""

ALPHAS: Floats = np.arange(0.05, 0.99, 0.05)
MIN_IOU = 0.5
"""Overlap of a match, for CLEAR and Identity."""
MOSTLY_TRACKED, MOSTLY_LOST = 0.8, 0.2  # shares of the frames of a track
_CONTINUES = 1000.0  # weight by which CLEAR prefers the track of the frame before to any overlap
_EPSILON = float(np.finfo(np.float64).eps)  # equality with a threshold is a match


@dataclass
class TrackedSequence:
    """One video, and one class of it, as overlaps of tracks in frames.

    Args:
        overlaps: IoU of the masks, 0 where one is absent, ``(T, G, P)``.
        truth_visible: where annotated tracks are visible, bool ``(T, G)``; each somewhere.
        found_visible: the same of predicted tracks, bool ``(T, P)``.
    """

    overlaps: Floats
    truth_visible: NDArray[np.bool_]
    found_visible: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Counts the frames of the tracks."""
        self.truth_lengths: Ints = self.truth_visible.sum(0)
        self.found_lengths: Ints = self.found_visible.sum(0)

    @property
    def is_one_sided(self) -> bool:
        """Whether annotations or predictions are missing altogether."""
        return not (self.truth_lengths.any() and self.found_lengths.any())


@dataclass(frozen=True)
class MetricFamily:
    """Metrics that are worked out from the same counts.

    Args:
        count: counts in one sequence.
        add: adds counts.
        finish: gives the metrics.
    """

    count: Callable[[TrackedSequence], Counts]
    add: Callable[[Iterable[Counts]], Counts]
    finish: Callable[[Counts], dict[str, float]]


def add_counts(parts: Iterable[Counts]) -> Counts:
    """Adds counts of one metric by name; at least one is needed."""
    total: Counts = {}
    for part in parts:
        total = {name: total.get(name, np.zeros(())) + value for name, value in part.items()}
    return total


def count_hota(sequence: TrackedSequence) -> Counts:
    """Counts matches at every threshold and how well the matched tracks agree as wholes."""
    frames, rows, columns = _hota_matches(sequence)
    overlaps = sequence.overlaps[frames, rows, columns]
    is_match = overlaps >= ALPHAS[:, None] - _EPSILON  # (A, matches)
    num_truth, num_found = len(sequence.truth_lengths), len(sequence.found_lengths)
    matches = np.zeros((len(ALPHAS), num_truth, num_found))
    for counts, chosen in zip(matches, is_match, strict=True):
        np.add.at(counts, (rows[chosen], columns[chosen]), 1)
    in_truth, in_found = sequence.truth_lengths[:, None], sequence.found_lengths

    def agreement(lengths: Ints | Floats) -> Floats:
        return np.asarray((matches * matches / np.maximum(lengths, 1)).sum((1, 2)))

    hits = is_match.sum(1).astype(np.float64)
    return {
        "HOTA_TP": hits,
        "HOTA_FN": in_truth.sum() - hits,
        "HOTA_FP": in_found.sum() - hits,
        "AssA": agreement(in_truth + in_found - matches),
        "AssRe": agreement(in_truth),
        "AssPr": agreement(in_found),
        "LocA": (is_match * overlaps).sum(1),
    }


def count_clear(sequence: TrackedSequence) -> Counts:
    """Counts matches at IoU 0.5, switches of identity, and how much of each track is followed.

    Frames of a sequence with annotations or predictions alone are not counted as frames.
    """
    in_truth, in_found = sequence.truth_lengths.sum(), sequence.found_lengths.sum()
    num_frames, num_truth = sequence.truth_visible.shape
    hits = overlap = switches = 0.0
    followed = np.zeros(num_truth, np.int64)  # frames with a match
    starts = np.zeros(num_truth, np.int64)
    last = np.full(num_truth, -1)  # predicted track of the last match
    before = np.full(num_truth, -1)  # the same, -1 unless it was in the frame before
    for frame, row, column in clear_matches(sequence):
        switches += float(((last[row] >= 0) & (last[row] != column)).sum())
        followed[row] += 1
        starts[row] += before[row] < 0
        last[row] = column
        before[:] = -1
        before[row] = column
        hits += len(row)
        overlap += float(sequence.overlaps[frame, row, column].sum())
    shares = followed / np.maximum(sequence.truth_lengths, 1)
    mostly, partly = (shares > MOSTLY_TRACKED).sum(), (shares >= MOSTLY_LOST).sum()
    values = {
        "CLR_TP": hits,
        "CLR_FN": in_truth - hits,
        "CLR_FP": in_found - hits,
        "IDSW": switches,
        "MT": mostly,
        "PT": partly - mostly,
        "ML": num_truth - partly,
        "Frag": np.maximum(starts - 1, 0).sum(),
        "CLR_Frames": 0 if sequence.is_one_sided else num_frames,
        "MOTP_sum": overlap,
    }
    return {name: np.float64(value) for name, value in values.items()}


def clear_matches(sequence: TrackedSequence) -> Iterator[tuple[int, Ints, Ints]]:
    """Matches tracks one to one in each frame, at IoU 0.5; whoever was matched before stays so.

    Yields:
        a frame in which both annotated and predicted tracks are visible, in their order, the
        numbers of the annotated tracks with a match, and those of the predicted ones.
    """
    num_frames, num_truth = sequence.truth_visible.shape
    before = np.full(num_truth, -1)
    for frame in range(num_frames):
        rows, columns, table = _visible_part(sequence, frame)
        if not table.size:
            continue  # what was tracked before such a frame is still so after it
        weights = table + _CONTINUES * (columns == before[rows][:, None])
        weights[table < MIN_IOU - _EPSILON] = 0
        best = linear_sum_assignment(weights, maximize=True)
        chosen = weights[best] > _EPSILON
        row, column = rows[best[0][chosen]], columns[best[1][chosen]]
        before[:] = -1
        before[row] = column
        yield frame, row, column


def count_identity(sequence: TrackedSequence) -> Counts:
    """Counts the frames in which tracks agree that are matched one to one for the whole video."""
    agreed = (sequence.overlaps >= MIN_IOU).sum(0)  # (G, P)
    hits = np.float64(agreed[linear_sum_assignment(agreed, maximize=True)].sum())
    return {
        "IDTP": hits,
        "IDFN": sequence.truth_lengths.sum() - hits,
        "IDFP": sequence.found_lengths.sum() - hits,
    }


def hota_curves(counts: Mapping[str, Floats]) -> dict[str, Floats]:
    """Gives the figures of HOTA at every threshold, ``(A,)`` each; fractions.

    Args:
        counts: of ``count_hota``, added.
    """
    hits, missed, false = (counts[f"HOTA_{name}"] for name in ("TP", "FN", "FP"))
    curves = {name: counts[name] / np.maximum(hits, 1) for name in ("AssA", "AssRe", "AssPr")}
    curves["LocA"] = np.maximum(counts["LocA"], 1e-10) / np.maximum(hits, 1e-10)  # 1 if no match
    curves["DetRe"] = hits / np.maximum(hits + missed, 1)
    curves["DetPr"] = hits / np.maximum(hits + false, 1)
    curves["DetA"] = hits / np.maximum(hits + missed + false, 1)
    curves["HOTA"] = np.sqrt(curves["DetA"] * curves["AssA"])
    curves["OWTA"] = np.sqrt(curves["DetRe"] * curves["AssA"])
    return curves


def hota_metrics(counts: Mapping[str, Floats]) -> dict[str, float]:
    """Gives the means over thresholds, and HOTA(0), LocA(0), HOTALocA(0) at the first; fractions.

    Args:
        counts: of ``count_hota``, added.
    """
    curves = hota_curves(counts)
    metrics = {name: float(curve.mean()) for name, curve in curves.items()}
    first = {f"{name}(0)": float(curves[name][0]) for name in ("HOTA", "LocA")}
    return metrics | first | {"HOTALocA(0)": first["HOTA(0)"] * first["LocA(0)"]}


def clear_metrics(counts: Mapping[str, Floats]) -> dict[str, float]:
    """Gives MOTA and its relatives as fractions, and FP_per_frame.

    Args:
        counts: of ``count_clear``, added.
    """
    sums = {name: float(value) for name, value in counts.items()}
    hits, missed, false, switches = (sums[name] for name in ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW"))
    in_truth = max(1.0, hits + missed)
    tracks = max(1.0, sums["MT"] + sums["PT"] + sums["ML"])
    return {
        "MOTA": (hits - false - switches) / in_truth,
        "MOTP": sums["MOTP_sum"] / max(1.0, hits),
        "MODA": (hits - false) / in_truth,
        "MOTAL": (hits - false - (np.log10(switches) if switches else 0.0)) / in_truth,
        "sMOTA": (sums["MOTP_sum"] - false - switches) / in_truth,
        "CLR_Re": hits / in_truth,
        "CLR_Pr": hits / max(1.0, hits + false),
        "CLR_F1": hits / max(1.0, hits + 0.5 * missed + 0.5 * false),
        "MTR": sums["MT"] / tracks,
        "PTR": sums["PT"] / tracks,
        "MLR": sums["ML"] / tracks,
        "FP_per_frame": false / max(1.0, sums["CLR_Frames"]),
    }


def identity_metrics(counts: Mapping[str, Floats]) -> dict[str, float]:
    """Gives IDF1, IDR and IDP as fractions.

    Args:
        counts: of ``count_identity``, added.
    """
    hits, missed, false = (float(counts[name]) for name in ("IDTP", "IDFN", "IDFP"))
    return {
        "IDF1": hits / max(1.0, hits + 0.5 * missed + 0.5 * false),
        "IDR": hits / max(1.0, hits + missed),
        "IDP": hits / max(1.0, hits + false),
    }


def _hota_matches(sequence: TrackedSequence) -> tuple[Ints, Ints, Ints]:
    """Matches tracks in every frame so that those that agree as wholes come together."""
    lengths = sequence.truth_lengths[:, None] + sequence.found_lengths
    shared = np.zeros(lengths.shape)
    num_frames = len(sequence.overlaps)
    for frame in range(num_frames):
        rows, columns, table = _visible_part(sequence, frame)
        unions = table.sum(1)[:, None] + table.sum(0) - table
        share = np.where(unions > _EPSILON, table / np.maximum(unions, _EPSILON), 0)
        shared[np.ix_(rows, columns)] += share
    alignment = shared / np.maximum(lengths - shared, 1)  # (G, P)
    found: list[list[Ints]] = [[], [], []]
    for frame in range(num_frames):
        rows, columns, table = _visible_part(sequence, frame)
        best = linear_sum_assignment(alignment[np.ix_(rows, columns)] * table, maximize=True)
        found[0].append(np.full(len(best[0]), frame))
        found[1].append(rows[best[0]])
        found[2].append(columns[best[1]])
    frames, rows, columns = (np.concatenate([*part, np.zeros(0, np.int64)]) for part in found)
    return frames.astype(np.int64), rows.astype(np.int64), columns.astype(np.int64)


def _visible_part(sequence: TrackedSequence, frame: int) -> tuple[Ints, Ints, Floats]:
    """Gives the tracks that are visible in a frame, and their overlaps."""
    rows = np.flatnonzero(sequence.truth_visible[frame])
    columns = np.flatnonzero(sequence.found_visible[frame])
    return rows, columns, sequence.overlaps[frame][np.ix_(rows, columns)]


FAMILIES = (
    MetricFamily(count_hota, add_counts, hota_metrics),
    MetricFamily(count_clear, add_counts, clear_metrics),
    MetricFamily(count_identity, add_counts, identity_metrics),
)
"""HOTA, CLEAR and Identity."""
