"""The generated data set ``documents_synthetic``: documents that a small grammar speaks.

For a fresh machine: ``documents_synthetic_train``, ``_val`` and ``_test`` need no download. They
are made once, from disjoint seeds, into the cache (``$VIDSEG_CACHE``, else ``~/.cache/vidseg``).

A document is a sequence of words with pauses, a word a fixed sequence of events, an event a smooth
curve in a space of ``_LATENT_DIM`` dimensions, played at varying speed and amplitude. Every event
has a twin that runs backwards, and every word one that consists of the twins in reverse order, so
that only the order of the frames tells them apart. A topic prefers some of the words, of twins
never both. Speakers have an offset and a gain per feature; white noise bounds what any codec can
reach. Nothing of it is meant to be like speech beyond that: parts recur, their order counts, and
what a document is about shows in its parts only.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import convolve1d

from vidseg.data import DatasetCatalog, Records
from vidseg.data.features import INDEX_NAME, load_feature_index
from vidseg.data.synthetic import cache_root
from vidseg.errors import DataError
from vidseg.files import write_folder

__all__ = ["TOPICS", "generate_documents", "register_documents_synthetic"]

_VERSION = 1
_FRAME_RATE = 50.0
_FEATURE_DIM = 64

_LATENT_DIM = 16
_NUM_EVENTS = 24  # the second half are the first one's backwards
_NUM_WORDS = 32  # likewise
_EVENTS_PER_WORD = 3
_NUM_HARMONICS = 4  # of an event's curve; more are less smooth
_EVENT_FRAMES = (9, 22)  # shortest and longest event at usual speed
_PAUSE_FRAMES = (3, 12)
_PAUSE_SHARE = 0.4  # of the gaps between words
_DOCUMENT_FRAMES = (300, 600)

_NUM_TOPICS = 12
_PREFERRED_WORDS = 5  # per topic
_PREFERENCE = 0.8  # share of the words of a document that its topic chooses

_NUM_SPEAKERS = 30
_SPEAKER_OFFSET = 0.3  # standard deviation; that of clean features is about 1.2
_SPEAKER_GAIN = 0.15
_NOISE = 0.25
_JITTER = 0.15  # of the logarithms of speed and amplitude
# Neighbouring events run into each other.
_SMOOTHING = np.hanning(7)[1:-1] / np.hanning(7)[1:-1].sum()

TOPICS = [f"topic_{number:02d}" for number in range(1, _NUM_TOPICS + 1)]
"""Names of the classes of documents."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Split:
    seed: int
    num_documents: int


_SPLITS = {"train": _Split(1, 600), "val": _Split(2, 200), "test": _Split(3, 200)}


def register_documents_synthetic() -> None:
    """Adds the three data sets to the catalog; nothing is generated before one is read."""
    for split in _SPLITS:
        folder = _split_folder(split)
        DatasetCatalog.register(
            f"documents_synthetic_{split}",
            _Loader(split),
            evaluator="document_codes",
            root=str(folder),
            json_file=str(folder / INDEX_NAME),
            item="document",
            topics=list(TOPICS),
            feature_dim=_FEATURE_DIM,
        )


def generate_documents(folder: str | Path, *, seed: int, num_documents: int) -> None:
    """Writes an index and one float16 ``.npy`` file per document, whole or not at all.

    Args:
        folder: where to; what is there already stays.
        seed: number of the split; documents of different seeds share nothing but the grammar.
        num_documents: how many; topics take turns.
    """

    def write(draft: Path) -> None:
        documents = []
        for number in range(num_documents):
            topic = number % _NUM_TOPICS
            rng = np.random.default_rng((_VERSION, seed, number))
            name = f"{number:04d}"
            np.save(draft / f"{name}.npy", _speak(_grammar(), topic, rng).astype(np.float16))
            documents.append({"id": name, "path": f"{name}.npy", "topic": TOPICS[topic]})
        index = {
            "description": "generated documents; see vidseg.projects.rqvae.documents_synthetic",
            "frame_rate": _FRAME_RATE,
            "feature_dim": _FEATURE_DIM,
            "topics": TOPICS,
            "documents": documents,
        }
        (draft / INDEX_NAME).write_text(json.dumps(index, indent=1))

    write_folder(Path(folder), write)


@dataclass(frozen=True)
class _Loader:
    """Reads a split; comparable, so that registering it again is recognised as the same."""

    split: str

    def __call__(self) -> Records:
        folder, name = _split_folder(self.split), f"documents_synthetic_{self.split}"
        size = _SPLITS[self.split]
        if not folder.exists():
            _logger.info("generating %s in %s", name, folder)
            generate_documents(folder, seed=size.seed, num_documents=size.num_documents)
        try:
            records = load_feature_index(folder / INDEX_NAME)
        except DataError as error:
            raise DataError(f"{error}; remove {folder} to have it generated again") from error
        records.damaged = {
            key: f"{reason}; remove {folder} to have it generated again"
            for key, reason in records.damaged.items()
        }
        return records


def _split_folder(split: str) -> Path:
    return cache_root() / f"documents_synthetic-v{_VERSION}" / split


@dataclass(frozen=True)
class _Grammar:
    """What all documents have in common."""

    curves: np.ndarray  # (events, harmonics, latent)
    durations: np.ndarray  # (events,) frames at usual speed
    words: np.ndarray  # (words, events per word)
    word_shares: np.ndarray  # (topics, words)
    mixing: np.ndarray  # (latent, D)
    means: np.ndarray  # (D,)
    scales: np.ndarray  # (D,)
    offsets: np.ndarray  # (speakers, D)
    gains: np.ndarray  # (speakers, D)


@lru_cache(maxsize=1)
def _grammar() -> _Grammar:
    rng = np.random.default_rng((_VERSION, 0))
    half = _NUM_EVENTS // 2
    decay = 1 / np.sqrt(1 + np.arange(_NUM_HARMONICS))
    curves = rng.normal(size=(half, _NUM_HARMONICS, _LATENT_DIM)) * decay[:, None]
    # cos(pi j (1 - u)) = (-1)^j cos(pi j u): an odd harmonic changes its sign when time runs back.
    signs = (-1.0) ** np.arange(_NUM_HARMONICS)
    durations = rng.integers(_EVENT_FRAMES[0], _EVENT_FRAMES[1] + 1, half)
    words = np.stack(
        [rng.choice(_NUM_EVENTS, _EVENTS_PER_WORD, replace=False) for _ in range(_NUM_WORDS // 2)]
    )
    twins = (words[:, ::-1] + half) % _NUM_EVENTS
    mixing = rng.normal(size=(_LATENT_DIM, _FEATURE_DIM)) / np.sqrt(_LATENT_DIM)
    return _Grammar(
        curves=np.concatenate([curves, curves * signs[:, None]]),
        durations=np.concatenate([durations, durations]),
        words=np.concatenate([words, twins]),
        word_shares=_word_shares(rng),
        mixing=mixing,
        means=rng.normal(size=_FEATURE_DIM),
        scales=np.exp(rng.normal(scale=0.5, size=_FEATURE_DIM)),
        offsets=rng.normal(scale=_SPEAKER_OFFSET, size=(_NUM_SPEAKERS, _FEATURE_DIM)),
        gains=np.exp(rng.normal(scale=_SPEAKER_GAIN, size=(_NUM_SPEAKERS, _FEATURE_DIM))),
    )


def _word_shares(rng: np.random.Generator) -> np.ndarray:
    """Gives how often every topic uses every word, ``(topics, words)``."""
    shares = np.full((_NUM_TOPICS, _NUM_WORDS), (1 - _PREFERENCE) / _NUM_WORDS)
    half = _NUM_WORDS // 2
    for topic in range(_NUM_TOPICS):
        pairs = rng.choice(half, _PREFERRED_WORDS, replace=False)
        preferred = pairs + half * rng.integers(2, size=_PREFERRED_WORDS)
        shares[topic, preferred] += _PREFERENCE / _PREFERRED_WORDS
    return shares


def _speak(grammar: _Grammar, topic: int, rng: np.random.Generator) -> np.ndarray:
    """Makes a document, float64 ``(T, D)``."""
    num_frames = int(rng.integers(_DOCUMENT_FRAMES[0], _DOCUMENT_FRAMES[1] + 1))
    parts: list[np.ndarray] = []
    margin = int(rng.integers(_EVENT_FRAMES[1]))  # documents may begin within an event
    while sum(map(len, parts)) < num_frames + margin:
        word = rng.choice(_NUM_WORDS, p=grammar.word_shares[topic])
        parts += [_play(grammar, event, rng) for event in grammar.words[word]]
        if rng.random() < _PAUSE_SHARE:
            pause = int(rng.integers(_PAUSE_FRAMES[0], _PAUSE_FRAMES[1] + 1))
            parts.append(np.zeros((pause, _LATENT_DIM)))
    latent = convolve1d(np.concatenate(parts), _SMOOTHING, axis=0)[margin : margin + num_frames]
    speaker = rng.integers(_NUM_SPEAKERS)
    clean = latent @ grammar.mixing * grammar.gains[speaker] + grammar.offsets[speaker]
    noisy = clean + rng.normal(scale=_NOISE, size=clean.shape)
    document: np.ndarray = grammar.means + grammar.scales * noisy
    return document


def _play(grammar: _Grammar, event: int, rng: np.random.Generator) -> np.ndarray:
    """Makes one event at some speed and amplitude, ``(frames, latent)``."""
    speed, amplitude = np.exp(rng.normal(scale=_JITTER, size=2))
    num_frames = max(round(grammar.durations[event] / speed), 2)
    time = (np.arange(num_frames) + 0.5) / num_frames
    waves: Any = np.cos(np.pi * np.outer(time, np.arange(_NUM_HARMONICS)))
    curve: np.ndarray = amplitude * waves @ grammar.curves[event]
    return curve


register_documents_synthetic()
