"""The generated data set ``actions_synthetic``: features of videos in which things are prepared.

For a fresh machine: ``actions_synthetic_train``, ``_val`` and ``_test`` need no download. They are
made once, from disjoint seeds, into the cache (``$VIDSEG_CACHE``, else ``~/.cache/vidseg``), in the
layout of real sets (see ``layout``).

The transcript of a video comes from a grammar (see ``actions_grammar``). A verb is a movement, in
part periodic, in a space of its own, a noun a point in another that wanders a little; features are
a smooth function of both. Hands hide the object at times, neighbouring steps run into each other,
every video has a style (offset and gain per feature), and noise lasts over a few frames. So a
single frame tells the class in three cases of four, while what stands before and after settles
it; and the parts of a class that was never seen are known from others.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.ndimage import convolve1d
from scipy.signal import lfilter

from vidseg.data import DatasetCatalog, Records
from vidseg.data.synthetic import cache_root
from vidseg.errors import DataError
from vidseg.files import write_folder

from .actions_grammar import CLASSES, NOUNS, PSEUDO_UNSEEN, UNSEEN, VERBS, Segment, write_transcript
from .layout import SplitFile

__all__ = ["PSEUDO_UNSEEN", "UNSEEN", "generate_actions", "register_actions_synthetic"]

_VERSION = 1
_FRAME_RATE = 10.0
_FEATURE_DIM = 64

_LATENT_DIM = 12  # of verbs, and of nouns
_SWING = 0.6  # of the periodic part of a movement, beside its mean of 1
_PERIODS = (4.0, 12.0)  # frames
_DRIFT = 0.5  # of a movement, from its start to its end
_WANDER = 0.3  # of nouns
_INTERACTION = 0.25  # of features that depend on verb and noun in no additive way

_HIDDEN_SHARE = 0.1  # of the frames: the object is hidden behind hands
_HIDDEN_FRAMES = (4, 12)
_BLUR = np.hanning(7)[1:-1] / np.hanning(7)[1:-1].sum()
_STYLE_OFFSET = 0.25
_STYLE_GAIN = 0.15
_NOISE = 1.5
_NOISE_MEMORY = 0.3  # correlation of the noise of neighbouring frames

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Split:
    seed: int
    num_videos: int


_SPLITS = {"train": _Split(1, 200), "val": _Split(2, 60), "test": _Split(3, 60)}


def register_actions_synthetic() -> None:
    """Adds the three data sets to the catalog; nothing is generated before one is read."""
    for split in _SPLITS:
        folder = _split_folder(split)
        DatasetCatalog.register(
            f"actions_synthetic_{split}",
            _Loader(split),
            evaluator="action_segmentation",
            root=str(folder),
            json_file=str(folder / _split_file(split)),
            classes=list(CLASSES),
            category_ids=list(range(len(CLASSES))),
            feature_dim=_FEATURE_DIM,
        )


def generate_actions(folder: str | Path, *, split: str, seed: int, num_videos: int) -> None:
    """Writes a data set in the layout of action segmentation, whole or not at all.

    Args:
        folder: where to; what is there already stays.
        split: name of its only split file.
        seed: number of the split; videos of different seeds share nothing but the kitchen.
        num_videos: how many.
    """

    def write(draft: Path) -> None:
        for name in ("features", "groundTruth", "splits"):
            (draft / name).mkdir()
        names = [f"{split}_{number:03d}" for number in range(num_videos)]
        for number, name in enumerate(names):
            features, labels = _make_video(np.random.default_rng((_VERSION, seed, number)))
            np.save(draft / "features" / f"{name}.npy", features.astype(np.float16))
            _write_lines(draft / "groundTruth" / f"{name}.txt", [CLASSES[i] for i in labels])
        _write_lines(draft / _split_file(split), names)
        _write_lines(draft / "mapping.txt", [f"{i} {name}" for i, name in enumerate(CLASSES)])

    write_folder(Path(folder), write)


@dataclass(frozen=True)
class _Loader:
    """Reads a split; comparable, so that registering it again is recognised as the same."""

    split: str

    def __call__(self) -> Records:
        folder, size = _split_folder(self.split), _SPLITS[self.split]
        if not folder.exists():
            _logger.info("generating actions_synthetic_%s in %s", self.split, folder)
            generate_actions(folder, split=self.split, seed=size.seed, num_videos=size.num_videos)
        way_out = f"remove {folder} to have it generated again"
        try:
            records = SplitFile(str(folder / _split_file(self.split)), frame_rate=_FRAME_RATE)()
        except DataError as error:
            raise DataError(f"{error}; {way_out}") from error
        records.damaged = {key: f"{reason}; {way_out}" for key, reason in records.damaged.items()}
        return records


def _split_folder(split: str) -> Path:
    return cache_root() / f"actions_synthetic-v{_VERSION}" / split


def _split_file(split: str) -> str:
    return f"splits/{split}.bundle"


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@dataclass(frozen=True)
class _Kitchen:
    """What all videos have in common."""

    movements: np.ndarray  # (verbs, 4, latent): mean, drift, cosine, sine
    periods: np.ndarray  # (verbs,) frames
    objects: np.ndarray  # (nouns, latent)
    mixing: np.ndarray  # (2 latent, D)
    folding: np.ndarray  # (2 latent, 2 latent)
    interaction: np.ndarray  # (2 latent, D)
    means: np.ndarray  # (D,)
    scales: np.ndarray  # (D,)


@lru_cache(maxsize=1)
def _kitchen() -> _Kitchen:
    rng = np.random.default_rng((_VERSION, 0))
    width = 2 * _LATENT_DIM
    parts = np.array([1.0, _DRIFT, _SWING, _SWING])
    return _Kitchen(
        movements=rng.normal(size=(len(VERBS), 4, _LATENT_DIM)) * parts[:, None],
        periods=rng.uniform(*_PERIODS, size=len(VERBS)),
        objects=rng.normal(size=(len(NOUNS), _LATENT_DIM)),
        mixing=rng.normal(size=(width, _FEATURE_DIM)) / np.sqrt(width),
        folding=rng.normal(size=(width, width)) / np.sqrt(width),
        interaction=rng.normal(size=(width, _FEATURE_DIM)) * _INTERACTION / np.sqrt(width),
        means=rng.normal(size=_FEATURE_DIM),
        scales=np.exp(rng.normal(scale=0.3, size=_FEATURE_DIM)),
    )


def _make_video(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Makes features, float64 ``(T, D)``, and labels, int64 ``(T,)``."""
    kitchen, segments = _kitchen(), write_transcript(rng)
    latent = np.concatenate([_play(kitchen, segment, rng) for segment in segments])
    latent[:, _LATENT_DIM:] *= _visibility(len(latent), rng)[:, None]
    latent = convolve1d(latent, _BLUR, axis=0, mode="nearest")
    clean = latent @ kitchen.mixing + np.tanh(latent @ kitchen.folding) @ kitchen.interaction
    gain = np.exp(rng.normal(scale=_STYLE_GAIN, size=_FEATURE_DIM))
    offset = rng.normal(scale=_STYLE_OFFSET, size=_FEATURE_DIM)
    features = kitchen.means + kitchen.scales * (clean * gain + offset + _noise(len(clean), rng))
    labels = np.repeat([s.label for s in segments], [s.num_frames for s in segments])
    return features, labels


def _play(kitchen: _Kitchen, segment: Segment, rng: np.random.Generator) -> np.ndarray:
    """Makes the latent curve of a step, ``(frames, 2 latent)``; zeros if nothing happens."""
    time = np.arange(segment.num_frames)
    curve = np.zeros((segment.num_frames, 2 * _LATENT_DIM))
    if segment.verb < 0:
        return curve
    phase = 2 * np.pi * (time / kitchen.periods[segment.verb] + rng.random())
    progress = 2 * (time + 0.5) / segment.num_frames - 1
    waves = np.stack([np.ones_like(phase), progress, np.cos(phase), np.sin(phase)], axis=1)
    curve[:, :_LATENT_DIM] = waves @ kitchen.movements[segment.verb]
    # A straight walk from one place near the object to another.
    ends = rng.normal(scale=_WANDER, size=(2, _LATENT_DIM))
    share = (progress[:, None] + 1) / 2
    curve[:, _LATENT_DIM:] = kitchen.objects[segment.noun] + ends[0] * (1 - share) + ends[1] * share
    return curve


def _visibility(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Gives how much of the object shows, ``(frames,)`` in [0, 1]."""
    shown = np.ones(num_frames)
    mean = sum(_HIDDEN_FRAMES) / 2
    for _ in range(rng.poisson(_HIDDEN_SHARE * num_frames / mean)):
        start = int(rng.integers(num_frames))
        shown[start : start + int(rng.integers(_HIDDEN_FRAMES[0], _HIDDEN_FRAMES[1] + 1))] = 0.0
    return shown


def _noise(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Gives noise of variance ``_NOISE``^2 that fades over a few frames, ``(frames, D)``."""
    white = rng.normal(scale=_NOISE, size=(num_frames, _FEATURE_DIM))
    white[1:] *= np.sqrt(1 - _NOISE_MEMORY**2)
    noise: np.ndarray = lfilter([1.0], [1.0, -_NOISE_MEMORY], white, axis=0)
    return noise


register_actions_synthetic()
