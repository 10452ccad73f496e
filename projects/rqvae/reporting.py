"""A page about a trained model on a data set: tables and pictures.

Shapes: T frames, D features per frame, Q codebooks, K entries.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from vidseg.data import Records
from vidseg.data.sequence_mapper import SequenceMapper
from vidseg.errors import DataError, nearest
from vidseg.files import read_json, write_atomically

from .coding import OnError, read_samples
from .documents import DocumentCodes
from .evaluator import DocumentCodesEvaluator
from .metrics import centred_energy, codebook_usage, is_limited_by_data, rates, snr
from .pictures import Panel, save_document, save_retrieval, save_snr, save_usage
from .similarity import collect

__all__ = ["Survey", "survey", "write_report"]

PAGE, METRICS = "report.md", "metrics.json"  # the evaluator's have the same names
_METHOD = "A/maxsim"
_NUM_QUERIES, _NUM_HITS = 3, 5


@dataclass
class Survey:
    """What the pictures need of a whole split; of a document no more than its codes.

    Attributes:
        counts: ``(Q, K)`` vectors of each entry.
        errors: ``(Q + 1,)`` squared error without quantisation, then with 1, 2, ... levels.
        energy: squared norm of all frames.
        feature_sum: ``(D,)`` sum of all frames.
        num_frames: valid ones.
        num_windows: all, as masked ones are in the file as well.
        seconds: of all documents.
        tokens: codes of each document.
        snr: of each document with all levels, in dB.
        topics: of each document, -1 if unknown.
        frame_rates: of each document.
        windows: descriptors of each document.
    """

    counts: np.ndarray
    errors: np.ndarray
    feature_sum: np.ndarray
    energy: float = 0.0
    num_frames: int = 0
    num_windows: int = 0
    seconds: float = 0.0
    tokens: list[DocumentCodes] = field(default_factory=list)
    snr: list[float] = field(default_factory=list)
    topics: list[int] = field(default_factory=list)
    frame_rates: list[float] = field(default_factory=list)
    windows: list[Tensor] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Of the documents."""
        return [str(tokens.meta["id"]) for tokens in self.tokens]

    @property
    def snr_by_level(self) -> list[float]:
        """SNR in dB without quantisation, then with 1, 2, ... levels."""
        energy = centred_energy(self.energy, self.feature_sum, self.num_frames)
        return [snr(energy, float(error)) for error in self.errors]


def survey(model: Any, records: Records, frame_rate: float, on_error: OnError) -> Survey:
    """Goes once over a data set.

    Args:
        model: a ``DocumentRQVAE`` in eval mode, or another that gives ``DocumentPrediction``.
        records: of a features data set.
        frame_rate: of documents that state none, in frames per second.
        on_error: told of each document that is left out.

    Raises:
        DataError: if not one document was sound.
    """
    num_levels, size, _ = model.rvq.codebooks.shape
    found = Survey(
        counts=np.zeros((num_levels, size), dtype=np.int64),
        errors=np.zeros(num_levels + 1),
        feature_sum=np.zeros(model.input_dim),
    )
    for sample in read_samples(records, on_error):
        try:
            with torch.no_grad():
                (prediction,) = model([sample])
        except DataError as error:
            on_error(error)
            continue
        _add(found, prediction, sample, float(sample.get("frame_rate", frame_rate)))
    if not found.tokens:
        raise DataError("not one document could be read, so there is nothing to report")
    return found


def write_report(
    model: Any,
    records: Records,
    found: Survey,
    folder: Path,
    *,
    source: str,
    document: str = "",
    run_dir: Path | None = None,
) -> Path:
    """Writes the pictures and the page that shows them.

    Args:
        model: that was surveyed.
        records: over which.
        found: what ``survey`` gave.
        folder: for the files; it exists.
        source: of the documents, for the page.
        document: id of the one to draw; by default that of the median SNR.
        run_dir: of the training, whose metrics are shown as well, if it was evaluated.

    Returns:
        The page.

    Raises:
        DataError: if there is no such document, or the metrics of the run are damaged.
    """
    shown = _document_to_show(found, document)
    evaluations = [] if run_dir is None else _evaluations(run_dir, folder)
    save_usage(found.counts, folder / "usage.png")
    unquantised, *by_level = found.snr_by_level
    save_snr(by_level, unquantised, folder / "snr_by_level.png")
    _save_document(model, records, found, shown, folder / "document.png")
    pictures = [
        ("Use of the codebooks", "usage.png"),
        ("Reconstruction by the number of levels", "snr_by_level.png"),
        (f"Document `{found.ids[shown]}` ({found.snr[shown]:.2f} dB)", "document.png"),
    ]
    if len(found.tokens) > 1:
        _save_retrieval(model, records, found, folder / "retrieval.png")
        pictures.append((f"What {_METHOD} finds", "retrieval.png"))
    explained = {
        "document.png": "Standardised features: 0 is the mean of the training set, 1 its spread.",
        "retrieval.png": "Time goes from left to right, every document over the whole width; the "
        "number is the similarity to the query.",
    }
    lines = [
        "# Documents as discrete codes",
        f"{len(found.tokens)} documents of `{source}`, {found.num_frames} frames, "
        f"{found.num_windows} windows.",
        _rate_table(model, found),
        _level_table(found),
        *evaluations,
        *(
            "\n\n".join(filter(None, (f"## {title}", explained.get(name), f"![{title}]({name})")))
            for title, name in pictures
        ),
    ]
    text = "\n\n".join(lines) + "\n"
    write_atomically(folder / PAGE, lambda file: file.write(text.encode()))
    return folder / PAGE


def _add(found: Survey, prediction: Any, sample: dict[str, Any], frame_rate: float) -> None:
    tokens = prediction.tokens
    valid = tokens.codes[tokens.window_mask].numpy()
    for level, column in enumerate(valid.T):
        used = column[column >= 0]
        found.counts[level] += np.bincount(used, minlength=found.counts.shape[1])
    errors = prediction.frame_errors.double().sum(1).numpy()
    energy = float(prediction.frame_energy.double().sum())
    total = prediction.feature_sum.double().numpy()
    found.errors += errors
    found.energy += energy
    found.feature_sum += total
    found.num_frames += prediction.num_frames
    found.num_windows += len(tokens.codes)
    found.seconds += prediction.num_frames / frame_rate
    found.tokens.append(
        DocumentCodes(tokens.codes, tokens.window_mask, tokens.num_frames, tokens.meta)
    )
    found.snr.append(snr(centred_energy(energy, total, prediction.num_frames), float(errors[-1])))
    found.topics.append(int(sample.get("topic", -1)))
    found.frame_rates.append(frame_rate)
    found.windows.append(prediction.vectors[_METHOD])


def _document_to_show(found: Survey, name: str) -> int:
    if not name:
        return int(np.argsort(np.nan_to_num(found.snr))[len(found.snr) // 2])
    if name not in found.ids:
        close = nearest(name, found.ids)
        hint = f"; nearest: {', '.join(close)}" if close else ""
        raise DataError(f"--document: there is no document {name!r}{hint}")
    return found.ids.index(name)


def _features(model: Any, records: Records, name: str) -> np.ndarray:
    """Reads a document again, standardised."""
    (record,) = (record for record in records if record["video_id"] == name)
    sample = SequenceMapper()(record, np.random.default_rng(0))
    return _standardised(model, sample["features"], sample.get("mask"))


def _standardised(model: Any, features: Tensor, mask: Tensor | None = None) -> np.ndarray:
    device = model.rvq.codebooks.device
    mask = None if mask is None else mask.to(device)
    values: np.ndarray = model.standardisation(features.to(device), mask).cpu().numpy()
    return values


def _save_document(model: Any, records: Records, found: Survey, index: int, path: Path) -> None:
    tokens = found.tokens[index]
    features = _features(model, records, found.ids[index])
    with torch.no_grad():
        rebuilt = _standardised(model, model.decode(tokens))
    title = f"{found.ids[index]}: {found.snr[index]:.2f} dB, {tokens.codes.numel()} codes"
    features = features[: len(rebuilt)]  # codes end with the last valid frame
    save_document(features, rebuilt, title, found.frame_rates[index], path)


def _save_retrieval(model: Any, records: Records, found: Survey, path: Path) -> None:
    """Draws queries that lie evenly over the data set: none is picked for its result."""
    num = len(found.tokens)
    queries = sorted({round(place) for place in np.linspace(0, num - 1, min(_NUM_QUERIES, num))})
    documents = collect(found.windows)
    topics = records.about.get("topics") or []

    def panel(index: int, title: str, query: int) -> Panel:
        known = min(found.topics[index], found.topics[query]) >= 0
        is_right = found.topics[index] == found.topics[query] if known else None
        if 0 <= found.topics[index] < len(topics):
            title += f"\n{_shortened(topics[found.topics[index]])}"
        return Panel(_features(model, records, found.ids[index]), title, is_right)

    rows = []
    for query in queries:
        similarities = documents.similarities(collect([found.windows[query]]))[0].numpy()
        order = np.argsort(-similarities, kind="stable")
        hits = [int(index) for index in order if index != query][:_NUM_HITS]
        row = [panel(query, f"query {_shortened(found.ids[query], 14)}", query)]
        for hit in hits:
            title = f"{similarities[hit]:+.2f} {_shortened(found.ids[hit], 14)}"
            row.append(panel(hit, title, query))
        rows.append(row)
    title = f"Queries and what {_METHOD} finds for them"
    if any(topic >= 0 for topic in found.topics):
        title += " (green: of the same topic, red: of another)"
    save_retrieval(rows, title, path)


def _shortened(name: str, length: int = 20) -> str:
    return name if len(name) <= length else f"…{name[1 - length :]}"


def _evaluations(run_dir: Path, folder: Path) -> list[str]:
    """Tells the main metrics of every data set that a run was evaluated on."""
    parts = []
    for path in sorted((run_dir / "inference").glob(f"*/{METRICS}")):
        metrics = read_json(path)
        if not isinstance(metrics, dict):
            raise DataError(f"{path} holds no metrics; evaluate the run again")
        rows = [
            (name, f"{metrics[name]:.3f}")
            for name in DocumentCodesEvaluator.headline
            if isinstance(metrics.get(name), int | float)
        ]
        if not rows:
            continue
        table = tabulate(rows, ["metric", "value"], tablefmt="github", disable_numparse=True)
        parts.append(f"## Evaluation of the run on {path.parent.name}\n\n{table}")
        page = path.parent / PAGE
        if page.is_file():
            link = Path(os.path.relpath(page, folder)).as_posix()
            parts.append(f"[All tables]({link}), with retrieval and the windows one by one.")
    return parts


def _rate_table(model: Any, found: Survey) -> str:
    num_levels, size = found.counts.shape
    figures = rates(
        num_frames=found.num_frames,
        num_windows=found.num_windows,
        seconds=found.seconds,
        input_dim=model.input_dim,
        num_levels=num_levels,
        codebook_size=size,
    )
    unquantised, *_, full = found.snr_by_level
    rows = [
        ("SNR, dB", f"{full:.2f}"),
        ("SNR without quantisation, dB", f"{unquantised:.2f}"),
        ("loss due to quantisation, dB", f"{unquantised - full:.2f}"),
        ("codes per 10 s", f"{figures.codes_per_10s:.1f}"),
        ("bit rate, bits/s", f"{figures.bits_per_second:.1f}"),
        ("frame compression (frames per window)", f"{figures.frame_compression:.2f}"),
        ("bit compression (of float32)", f"{figures.bit_compression:.0f}"),
    ]
    return tabulate(rows, ["figure", "value"], tablefmt="github", disable_numparse=True)


def _level_table(found: Survey) -> str:
    usage = codebook_usage(found.counts)
    size = found.counts.shape[1]
    rows = [
        (
            level + 1,
            f"{100 * usage.utilization[level]:.1f}",
            f"{100 * usage.expected[level]:.1f}",
            f"{usage.perplexity[level]:.1f}",
            f"{usage.perplexity_ratio[level]:.2f}",
            f"{usage.dead_codes[level]:.0f}",
            f"{100 * usage.top_share[level]:.2f}",
            f"{value:.2f}",
        )
        for level, value in enumerate(found.snr_by_level[1:])
    ]
    head = [
        *("level", "used, %", "random would use, %", "perplexity", "perplexity / K"),
        *("dead codes", "most used, %", "SNR up to here, dB"),
    ]
    table = tabulate(rows, head, tablefmt="github", disable_numparse=True)
    if is_limited_by_data(float(usage.num_vectors.max()), size):
        table += (
            f"\n\n{usage.num_vectors.max():.0f} vectors are few for {size} entries: how many are "
            "used is limited by the data."
        )
    return table
