"""Means of the metrics of several runs: over the splits of a data set, and over seeds.

Runs of one table share their settings; they may differ in split, seed and the classes held out.
"""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.errors import DataError
from vidseg.evaluation.finished_runs import FinishedRun, read_run
from vidseg.evaluation.report import write_text
from vidseg.files import read_json

__all__ = ["NAMES", "Score", "Table", "as_markdown", "gather", "read_runs", "write_average"]

NAMES = ("average.md", "average.csv")

_METRICS = "metrics.json"
_SPLIT = re.compile(r"split[^_./?]+", re.IGNORECASE)
# Runs that differ in these alone are folds or repetitions of one another.
_OWN = (
    "SEED",
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "SOLVER.INIT_FROM",
    "CLIP.unseen",
    "CLIP.pseudo_unseen",
    "CLIP.calibration_set",
    "FACT.drop_columns",
)
# The same number of epochs takes other numbers of iterations where splits differ in size.
_LENGTH = ("SOLVER.MAX_ITER", "SOLVER.STEPS")
_MAX_METRICS = 8  # columns of a table without any of the main metrics
_MAX_CHANGES = 3


@dataclass(frozen=True)
class Score:
    """What a run reached on a data set.

    Attributes:
        split: of the data set; its name if that tells none.
        repetition: the same for runs that are alike but for the split.
        metrics: flat names to values.
    """

    split: str
    repetition: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Table:
    """Runs that may be averaged.

    Attributes:
        title: the data set, and by what its runs differ from those of other tables.
        scores: of all runs.
    """

    title: str
    scores: list[Score]

    @property
    def splits(self) -> dict[str, list[Score]]:
        """The scores by split."""
        found: dict[str, list[Score]] = {}
        for score in sorted(self.scores, key=lambda score: _natural(score.split)):
            found.setdefault(score.split, []).append(score)
        return found

    @property
    def metrics(self) -> list[str]:
        """Names of metrics that any run has."""
        return list(dict.fromkeys(name for score in self.scores for name in score.metrics))

    def by_split(self, metric: str) -> dict[str, list[float]]:
        """Gives the values that there are of a metric, by split."""
        return {
            split: [score.metrics[metric] for score in scores if metric in score.metrics]
            for split, scores in self.splits.items()
        }

    def mean(self, metric: str) -> float | None:
        """Gives the mean over splits of the means of each; None unless every split has one."""
        values = list(self.by_split(metric).values())
        return statistics.fmean(map(statistics.fmean, values)) if all(values) else None

    def deviation(self, metric: str) -> float | None:
        """Gives the standard deviation between repetitions of the mean over splits.

        None unless there are two of them that ran on all splits.
        """
        found: dict[str, dict[str, float]] = {}
        for score in self.scores:
            if metric in score.metrics:
                found.setdefault(score.repetition, {})[score.split] = score.metrics[metric]
        whole = [v.values() for v in found.values() if len(v) == len(self.splits)]
        return statistics.stdev(map(statistics.fmean, whole)) if len(whole) > 1 else None


def read_runs(folders: Iterable[Path], on_error: Callable[[DataError], None]) -> list[FinishedRun]:
    """Reads the runs in folders or below them; each once, however often it is named.

    Args:
        folders: run directories, or what holds some; or a ``metrics.json`` of an evaluation.
        on_error: told of each that is missing, damaged or not finished, which is left out.
    """
    found: dict[Path, FinishedRun] = {}
    for given in folders:
        if given.name == _METRICS:
            places = [given]
        else:
            places = [path.parent for path in sorted(given.rglob("config.yaml"))]
        if not places:
            on_error(DataError(f"{given} holds no run: there is no config.yaml in it or below"))
        for place in places:
            if place.resolve() in found:
                continue
            try:
                found[place.resolve()] = _read(place)
            except DataError as error:
                on_error(error)
    return list(found.values())


def _read(place: Path) -> FinishedRun:
    """Reads a run directory, or the metrics of one evaluation in OUTPUT_DIR/inference/<set>."""
    if place.name != _METRICS:
        run = read_run(place)
        if not run.metrics:
            raise DataError(f"{place} is not finished: it has no final metrics")
        return run
    flat = read_json(place)
    if not isinstance(flat, dict):
        raise DataError(f"{place} holds no metrics")
    folder = place.resolve().parent
    output_dir = folder.parents[1]
    # An evaluation of weights from elsewhere leaves no config.
    config = read_run(output_dir).config if (output_dir / "config.yaml").is_file() else {}
    values = {k: float(v) for k, v in flat.items() if isinstance(v, int | float)}
    return FinishedRun(folder, config, {folder.name: values})


def gather(runs: Iterable[FinishedRun]) -> list[Table]:
    """Sorts scores into tables: one for each data set and settings.

    Args:
        runs: see ``read_runs``.
    """
    runs = list(runs)
    uneven = _uneven(runs)
    groups: dict[tuple[str, str], list[Score]] = {}
    settings: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        repetition = json.dumps([run.config.get("SEED"), run.config.get("CLIP.unseen")])
        for dataset, metrics in run.metrics.items():
            family, split = _split_of(dataset)
            shared = _settings(run)
            if (family, _key(shared)) in uneven:
                shared |= _length(run)
            key = (family, _key(shared))
            settings[key] = shared
            groups.setdefault(key, []).append(Score(split, repetition, metrics))
    tables = []
    for key, scores in groups.items():
        twins = [other for (family, _), other in settings.items() if family == key[0]]
        tables.append(Table(_title(key[0], settings[key], twins), scores))
    return tables


def _uneven(runs: Iterable[FinishedRun]) -> set[tuple[str, str]]:
    """Gives data sets and settings of which runs of one split were trained for unequal times."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for run in runs:
        for dataset in run.metrics:
            family, split = _split_of(dataset)
            lengths = found.setdefault((family, _key(_settings(run)), split), set())
            lengths.add(_key(_length(run)))
    return {(family, key) for (family, key, _), lengths in found.items() if len(lengths) > 1}


def _settings(run: FinishedRun) -> dict[str, Any]:
    return {
        key: value
        for key, value in run.config.items()
        if key not in _OWN + _LENGTH and not key.startswith("DATASETS.")
    }


def _length(run: FinishedRun) -> dict[str, Any]:
    return {key: run.config[key] for key in _LENGTH if key in run.config}


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def as_markdown(tables: Sequence[Table], metrics: Sequence[str]) -> str:
    """Lays out the tables: a row for each split, and the mean over splits.

    Args:
        tables: see ``gather``.
        metrics: columns; of a table that has none of them, its first ones.
    """
    parts = [
        "# Averages",
        "Each row: mean and standard deviation over the runs of a split. Last row: mean over "
        "splits, and the standard deviation of that mean between runs of other seeds, as far as "
        "these ran on all splits; in brackets that between the splits.",
    ]
    for table in tables:
        parts += [f"## {table.title}", _layout(table, metrics)]
    return "\n\n".join(parts) + "\n"


def write_average(folder: Path, tables: Sequence[Table], metrics: Sequence[str]) -> None:
    """Writes ``average.md``, and ``average.csv`` with all metrics.

    Args:
        folder: for the two files; it exists.
        tables: see ``gather``.
        metrics: see ``as_markdown``.

    Raises:
        DataError: if a file cannot be written.
    """
    for name, text in zip(NAMES, (as_markdown(tables, metrics), _as_csv(tables)), strict=True):
        write_text(folder / name, text)


def _layout(table: Table, wanted: Sequence[str]) -> str:
    from tabulate import tabulate

    known = table.metrics
    columns = [metric for metric in wanted if metric in known] or known[:_MAX_METRICS]
    rows = []
    for split, scores in table.splits.items():
        cells = [_cell(table.by_split(metric)[split], len(scores)) for metric in columns]
        rows.append([split, len(scores), *cells])
    if len(rows) > 1:
        total = sum(len(scores) for scores in table.splits.values())
        rows.append(["mean", total, *(_mean_cell(table, metric) for metric in columns)])
    header = ["split", "runs", *columns]
    return str(tabulate(rows, header, tablefmt="github", disable_numparse=True))


def _cell(values: Sequence[float], num_runs: int) -> str:
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.1f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.1f}"
    return text if len(values) == num_runs else f"{text} of {len(values)}"


def _mean_cell(table: Table, metric: str) -> str:
    mean, deviation = table.mean(metric), table.deviation(metric)
    if mean is None:
        return "-"
    between = statistics.stdev(map(statistics.fmean, table.by_split(metric).values()))
    spread = "" if deviation is None else f" ± {deviation:.1f}"
    return f"{mean:.1f}{spread} ({between:.1f})"


def _as_csv(tables: Sequence[Table]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "metric", "split", "runs", "mean", "sd"])
    for table in tables:
        for metric in table.metrics:
            by_split = table.by_split(metric)
            for split, values in by_split.items():
                deviation = statistics.stdev(values) if len(values) > 1 else ""
                mean: float | str = statistics.fmean(values) if values else ""
                writer.writerow([table.title, metric, split, len(values), mean, deviation])
            if len(by_split) > 1:
                count = sum(map(len, by_split.values()))
                figures = (table.mean(metric), table.deviation(metric))
                cells = ["" if figure is None else figure for figure in figures]
                writer.writerow([table.title, metric, "mean", count, *cells])
    return text.getvalue()


def _split_of(dataset: str) -> tuple[str, str]:
    """Gives what the splits of a data set have in common, and which one it is."""
    path, mark, options = dataset.partition("?")
    folder, slash, name = path.rpartition("/")
    matches = list(_SPLIT.finditer(name))
    if not matches:
        return dataset, name
    last = matches[-1]  # before it, the name of a folder may stand: splits_test.split1
    common = f"{name[: last.start()]}split*{name[last.end() :]}"
    return f"{folder}{slash}{common}{mark}{options}", last[0]


def _title(family: str, own: dict[str, Any], twins: Sequence[dict[str, Any]]) -> str:
    """Names the data set, and the settings that other tables of it do not share."""
    keys = dict.fromkeys(key for twin in twins for key in twin)
    differing = [key for key in keys if any(twin.get(key) != own.get(key) for twin in twins)]
    shown = [f"{key} {own.get(key)}" for key in differing[:_MAX_CHANGES]]
    more = len(differing) - len(shown)
    return "; ".join([family, *shown, *([f"{more} more"] if more else [])])


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts split10 after split2."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
