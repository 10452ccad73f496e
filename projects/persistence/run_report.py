"""One page about all runs below a folder: what they reached, beside what they have to beat."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.errors import DataError
from vidseg.evaluation.finished_runs import read_run
from vidseg.files import make_folder, write_atomically

from .pages import Block, Heading, Picture, Table, Text, as_html, as_markdown

__all__ = ["PAGES", "Run", "find_runs", "write_report"]

PAGES = ("report.md", "report.html")

_ARCHITECTURE = "ObjectPersistence"
_SUBSET = "_400"  # of the training clips, to measure the gap between training and test
_BALANCED = "tokens/balanced_accuracy"
_COLUMNS = (
    ("balanced", _BALANCED),
    ("accuracy", "tokens/accuracy"),
    ("AUROC", "tokens/AUROC"),
    ("by object", "objects/balanced_accuracy"),
    ("tracker", "baselines/tracker"),
    ("above tracker", "tokens/margin_over_tracker"),
    ("leak probe", "baselines/leak_probe"),
    ("majority", "baselines/majority"),
)
_ATTENTION = (
    ("balanced", _BALANCED),
    ("ratio, summary", "attention/summary/ratio"),
    ("entropy, summary", "attention/summary/entropy"),
    ("ratio, last layer", "attention/last_layer/ratio"),
    ("lift, last layer", "attention/last_layer/lift"),
    ("entropy, last layer", "attention/last_layer/entropy"),
)
_PICTURES = {
    "attention_sample": "Attention",
    "token_graph": "Token graph",
    "tracks": "Tracks",
}


@dataclass(frozen=True)
class Run:
    """What a run directory tells.

    Attributes:
        folder: the run directory.
        name: its path below the folder that was searched.
        config: of the run, by full keys.
        metrics: data set to flat names to values; empty if the run is not finished.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    metrics: dict[str, dict[str, float]]

    @property
    def train_set(self) -> str:
        """What it was trained on."""
        return ", ".join(self.config.get("DATASETS.TRAIN") or ())

    @property
    def attention_weight(self) -> float:
        """Of the supervision of attention."""
        return float(self.config.get("MODEL.PERSISTENCE.ATTENTION_WEIGHT") or 0)

    @property
    def twin_key(self) -> str:
        """The same for runs that differ in nothing but the seed."""
        own = ("SEED", "OUTPUT_DIR")
        rest = {key: value for key, value in self.config.items() if key not in own}
        return json.dumps(rest, sort_keys=True, default=str)


def find_runs(folder: Path, on_error: Callable[[DataError], None]) -> list[Run]:
    """Finds the runs of object persistence below a folder, in the order of their paths.

    Args:
        folder: to search.
        on_error: told of each run directory that is damaged, which is then left out.

    Raises:
        DataError: if the folder does not exist or there is no run in it.
    """
    if not folder.is_dir():
        raise DataError(f"--input {folder} is no folder; give the OUTPUT_DIR of a run or one above")
    runs = []
    for path in sorted(folder.rglob("config.yaml")):
        try:
            found = read_run(path.parent)
        except DataError as error:
            on_error(error)
            continue
        below = path.parent.relative_to(folder).as_posix()
        name = below if below != "." else folder.resolve().name
        run = Run(found.folder, name, found.config, found.metrics)
        if run.config.get("MODEL.META_ARCHITECTURE") == _ARCHITECTURE:
            runs.append(run)
    if not runs:
        raise DataError(f"--input {folder} holds no run of {_ARCHITECTURE} (no config.yaml of one)")
    return runs


def write_report(runs: Sequence[Run], folder: Path, *, num_clips: int = 2) -> Path:
    """Writes the page as Markdown and as HTML.

    Args:
        runs: to tell of.
        folder: for the two files.
        num_clips: clips of each run whose pictures are shown.

    Returns:
        The HTML file, which holds all pictures.

    Raises:
        OSError: if the disk is full or not writable.
    """
    make_folder(folder, "--output: the folder")
    blocks = list(_page(runs, num_clips))
    texts = (as_markdown(blocks, folder), as_html(blocks, folder))
    for name, text in zip(PAGES, texts, strict=True):
        _write(folder / name, text)
    return folder / PAGES[1]


def _page(runs: Sequence[Run], num_clips: int) -> Iterator[Block]:
    yield Heading("Object persistence", 1)
    finished = [run for run in runs if run.metrics]
    groups = _twins(finished)
    yield Text(
        f"{len(finished)} finished runs of {len(groups)} configs. Accuracies are percent of the "
        "blobs that belong to an object; balanced: the mean of both classes, 50 by chance. Runs "
        "that differ in the seed alone share a row: mean and standard deviation. Of a single run "
        "the brackets hold the 95 % interval over the clips."
    )
    if finished:
        yield Heading("Decisions")
        yield _decisions(groups)
        yield Heading("Attention")
        yield Text(
            "Ratio: mean attention to a persistent blob by that to a transient one, 1 if it is "
            "indifferent. Where the weight of the supervision is above 0, the ratio is a property "
            "of the loss; where it is 0, of the model."
        )
        yield _attention(groups)
    unfinished = [run.name for run in runs if not run.metrics]
    if unfinished:
        yield Heading("Not finished")
        yield Text(", ".join(unfinished))
    tables = sorted({path for run in runs if (path := _ablation_page(run)) is not None})
    if tables:
        yield Heading("Ablations")
        for path in tables:
            yield Text(f"{path.parent}: one component less at a time", path)
    for group in groups.values():
        if _ablation_page(group[0]) is None:
            yield from _pictures(group[0], num_clips)


def _twins(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.twin_key, []).append(run)
    return groups


def _decisions(groups: dict[str, list[Run]]) -> Table:
    header = ["run", "trained on", "tested on", "runs", *(title for title, _ in _COLUMNS)]
    rows = []
    for group, dataset in _rows(groups):
        cells = [_cell(group, dataset, metric) for _, metric in _COLUMNS]
        gap = _summary([_gap(run, dataset) for run in group])
        rows.append([*_names(group, dataset), str(len(group)), *cells, gap])
    return Table([*header, "training minus test"], rows)


def _attention(groups: dict[str, list[Run]]) -> Table:
    header = ["run", "trained on", "tested on", "supervision", *(title for title, _ in _ATTENTION)]
    rows = []
    for group, dataset in _rows(groups):
        cells = [_cell(group, dataset, metric) for _, metric in _ATTENTION]
        rows.append([*_names(group, dataset), f"{group[0].attention_weight:g}", *cells])
    return Table(header, rows)


def _rows(groups: dict[str, list[Run]]) -> Iterator[tuple[list[Run], str]]:
    """Gives the data sets of each group, test before val; the subset for the gap has no row."""
    for group in groups.values():
        datasets = dict.fromkeys(name for run in group for name in run.metrics)
        own = f"{group[0].train_set}{_SUBSET}"
        for name in sorted(datasets, key=lambda name: not name.endswith("_test")):
            if name != own:
                yield group, name


def _names(group: Sequence[Run], dataset: str) -> list[str]:
    names = [run.name for run in group]
    shared = names[0] if len(names) == 1 else os.path.commonpath(names) or names[0]
    return [shared, _short(group[0].train_set), _short(dataset)]


def _short(dataset: str) -> str:
    return dataset.replace("persistence_", "")


def _cell(group: Sequence[Run], dataset: str, metric: str) -> str:
    values = [run.metrics.get(dataset, {}).get(metric, math.nan) for run in group]
    text = _summary(values)
    flat = group[0].metrics.get(dataset, {})
    low, high = (flat.get(f"{metric}_{end}", math.nan) for end in ("low", "high"))
    if len(group) == 1 and not math.isnan(low):
        text += f" ({low:.2f} to {high:.2f})"
    return text


def _summary(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "-"
    text = f"{statistics.fmean(known):.2f}"
    return f"{text} ± {statistics.stdev(known):.2f}" if len(known) > 1 else text


def _gap(run: Run, dataset: str) -> float:
    """Compares balanced accuracy on clips of training with that on a data set."""
    seen = run.metrics.get(f"{run.train_set}{_SUBSET}", {}).get(_BALANCED, math.nan)
    return seen - run.metrics.get(dataset, {}).get(_BALANCED, math.nan)


def _ablation_page(run: Run) -> Path | None:
    """Gives the table of the ablation that a run belongs to."""
    page = run.folder.parent.parent / "ablation.md"
    return page if page.is_file() else None


def _pictures(run: Run, num_clips: int) -> Iterator[Block]:
    yield Heading(run.name)
    curves = run.folder / "training_curves.png"
    if curves.is_file():
        yield Picture(curves, f"Training of {run.name}")
    for dataset in sorted(run.metrics, key=lambda name: not name.endswith("_test")):
        folder = run.folder / "inference" / dataset
        if (folder / "report.md").is_file():
            yield Text(f"All tables of {_short(dataset)}", folder / "report.md")
    for dataset in [name for name in run.metrics if name.endswith("_test")] or list(run.metrics):
        folder = run.folder / "inference" / dataset
        samples = sorted(folder.glob("attention_sample_*.png"))[:num_clips]
        for clip in [path.stem.removeprefix("attention_sample_") for path in samples]:
            for kind, title in _PICTURES.items():
                path = folder / f"{kind}_{clip}.png"
                if path.is_file():
                    yield Picture(path, f"{title}: clip {clip} of {_short(dataset)}")


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
