"""The tables of an ablation: means over seeds, and differences to what is complete."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseg.files import write_atomically

__all__ = ["NAMES", "Result", "Variant", "as_markdown", "write_tables"]

NAMES = ("ablation.md", "ablation.csv", "ablation.json")
_MAX_METRICS = 8  # columns of a table where no evaluator names its main metrics
_MAX_CHANGES = 3


@dataclass(frozen=True)
class Variant:
    """What is compared.

    Attributes:
        name: stem of its config file.
        changes: ``KEY: old -> new`` against the config that all are compared with; empty for it.
    """

    name: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Attributes:
        variant: that was run.
        seed: of the run.
        metrics: data set to flat names to values; empty if it is not finished.
        failure: why it has none, if it failed.
    """

    variant: Variant
    seed: int
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failure: str = ""

    def value(self, dataset: str, metric: str) -> float | None:
        """Gives a metric, None if there is none."""
        value = self.metrics.get(dataset, {}).get(metric, math.nan)
        return value if math.isfinite(value) else None


def write_tables(
    folder: Path, results: Sequence[Result], headlines: Mapping[str, Sequence[str]]
) -> None:
    """Writes ``ablation.md``, ``ablation.csv`` and ``ablation.json``.

    Args:
        folder: for the files; it exists.
        results: of all runs, finished or not; those without changes are what is complete.
        headlines: data set to the metrics that its table shows, see ``Evaluator``.

    Raises:
        OSError: if the disk is full or not writable.
    """
    texts = (as_markdown(results, headlines), _as_csv(results), _as_json(results))
    for name, text in zip(NAMES, texts, strict=True):
        _write(folder / name, text)


def as_markdown(results: Sequence[Result], headlines: Mapping[str, Sequence[str]]) -> str:
    """Lays out one table for each data set.

    Args:
        results: see ``write_tables``.
        headlines: see ``write_tables``.
    """
    base = next(result.variant for result in results if not result.variant.changes)
    seeds = list(dict.fromkeys(result.seed for result in results))
    told = f"Of seed {seeds[0]}"
    if len(seeds) > 1:
        told = (
            f"Means over the seeds {', '.join(map(str, seeds))}, with the standard deviation "
            "between them"
        )
    parts = [
        "# Ablation",
        f"`{base.name}` and variants of it that differ as said. {told}; in brackets the difference "
        "to it, seed by seed.",
    ]
    for dataset, headline in headlines.items():
        parts += [f"## {dataset}", _table(results, base, dataset, headline)]
    failed = [result for result in results if result.failure]
    if failed:
        lines = [f"- {r.variant.name}, seed {r.seed}: {r.failure}" for r in failed]
        parts += ["## Failed runs", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _table(results: Sequence[Result], base: Variant, dataset: str, headline: Sequence[str]) -> str:
    from tabulate import tabulate

    columns = _columns(results, dataset, headline)
    rows = []
    for variant in dict.fromkeys(result.variant for result in results):
        own = [result for result in results if result.variant == variant]
        done = sum(dataset in result.metrics for result in own)
        count = str(done) if done == len(own) else f"{done} of {len(own)}"
        row = [variant.name, _change(variant), count]
        for metric in columns:
            cell = _cell(_values(own, dataset, metric), done)
            difference = _difference(results, base, variant, dataset, metric)
            row.append(f"{cell} ({difference:+.2f})" if difference is not None else cell)
        rows.append(row)
    header = ["variant", "change", "runs", *columns]
    return str(tabulate(rows, header, tablefmt="github", disable_numparse=True))


def _columns(results: Sequence[Result], dataset: str, headline: Sequence[str]) -> list[str]:
    flats = [result.metrics.get(dataset, {}) for result in results]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    wanted = [name for end in headline for name in names if f"/{name}".endswith(f"/{end}")]
    return list(dict.fromkeys(wanted)) or names[:_MAX_METRICS]


def _change(variant: Variant) -> str:
    if not variant.changes:
        return "none"
    more = len(variant.changes) - _MAX_CHANGES
    shown = [change.replace("|", r"\|") for change in variant.changes[:_MAX_CHANGES]]
    return "; ".join(shown) + (f" and {more} more" if more > 0 else "")


def _values(results: Sequence[Result], dataset: str, metric: str) -> list[float]:
    values = (result.value(dataset, metric) for result in results)
    return [value for value in values if value is not None]


def _cell(values: Sequence[float], num_runs: int) -> str:
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.2f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.2f}"
    return text if len(values) == num_runs else f"{text} of {len(values)}"


def _difference(
    results: Sequence[Result], base: Variant, variant: Variant, dataset: str, metric: str
) -> float | None:
    """Compares means over the seeds that both have; None where there is nothing to compare."""
    if variant == base:
        return None
    found: dict[Variant, dict[int, float]] = {base: {}, variant: {}}
    for result in results:
        value = result.value(dataset, metric)
        if result.variant in found and value is not None:
            found[result.variant][result.seed] = value
    common = found[base].keys() & found[variant].keys()
    if not common:
        return None
    return statistics.fmean(found[variant][seed] - found[base][seed] for seed in common)


def _as_csv(results: Sequence[Result]) -> str:
    """Gives a line for every metric of every run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "seed", "data set", "metric", "value"])
    for result in results:
        for dataset, flat in result.metrics.items():
            for metric in flat:
                value = result.value(dataset, metric)
                row = (result.variant.name, result.seed, dataset, metric)
                writer.writerow([*row, "" if value is None else repr(value)])
    return text.getvalue()


def _as_json(results: Sequence[Result]) -> str:
    content = []
    for variant in dict.fromkeys(result.variant for result in results):
        own = [result for result in results if result.variant == variant]
        runs: list[dict[str, Any]] = []
        for result in own:
            metrics = {
                dataset: {name: result.value(dataset, name) for name in flat}
                for dataset, flat in result.metrics.items()
            }
            told = {"failure": result.failure} if result.failure else {"metrics": metrics}
            runs.append({"seed": result.seed, **told})
        content.append(
            {
                "variant": variant.name,
                "changes": list(variant.changes),
                "mean": _over_seeds(own, statistics.fmean, 1),
                "std": _over_seeds(own, statistics.stdev, 2),
                "runs": runs,
            }
        )
    return json.dumps(content, indent=1) + "\n"


def _over_seeds(results: Sequence[Result], summary: Any, least: int) -> dict[str, Any]:
    """Summarises every metric that enough runs have."""
    found: dict[str, Any] = {}
    for dataset, metric in dict.fromkeys(
        (dataset, name) for r in results for dataset, flat in r.metrics.items() for name in flat
    ):
        values = _values(results, dataset, metric)
        if len(values) >= least:
            found.setdefault(dataset, {})[metric] = summary(values)
    return found


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
