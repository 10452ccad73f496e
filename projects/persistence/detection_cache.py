"""Detections of generated clips on disk, each clip made once per machine.

One small file per clip below ``$VIDSEG_CACHE/persistence/<key>/<split>``; the key is a hash of
everything that the content depends on, settings and code. Processes may write the same file at the
same time: each writes the same bytes, and a file appears as a whole. All of it may be removed
whenever nobody reads it; 4,000 clips of one setting take about 100 MB.

Shapes: N detections, P side of a patch, M objects, T frames.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.data.synthetic import cache_root
from vidseg.files import remove_stale_drafts, write_atomically

__all__ = ["SOURCES", "CachedClip", "DetectionCache", "cache_key"]

SOURCES = (
    "clips",
    "confidence",
    "detection_cache",
    "detections",
    "detector",
    "ground_truth",
    "layouts",
    "mapper",
    "patches",
    "peaks",
    "rendering",
    "responses",
    "scene",
    "trackers",
    "variants",
)
"""Modules of the project that the content depends on."""

_logger = logging.getLogger(__name__)


@dataclass
class CachedClip:
    """What a clip is to training and evaluation.

    Attributes:
        rows: float32 ``(N, 11)``, columns of the detections, see ``mapper``.
        patches: uint8 ``(N, 3, P, P)``.
        object_ids: int64 ``(N,)``, -1 where there is no object.
        tracks: int64 ``(N,)``.
        labels: int64 ``(M,)`` of the objects.
        visible: bool ``(M, T)``.
    """

    rows: np.ndarray
    patches: np.ndarray
    object_ids: np.ndarray
    tracks: np.ndarray
    labels: np.ndarray
    visible: np.ndarray


def cache_key(settings: dict[str, Any]) -> str:
    """Gives a short name for everything that cached clips depend on.

    Args:
        settings: plain json.
    """
    text = json.dumps({"code": _code_digest(), **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _code_digest() -> str:
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()


class DetectionCache:
    """Keeps clips; a disk that cannot be written only costs time.

    Args:
        key: see ``cache_key``.
        split: of the clips.
    """

    def __init__(self, key: str, split: str) -> None:
        self._folder = cache_root() / "persistence" / key / split
        self._is_writable = True
        remove_stale_drafts(self._folder)

    def get(self, index: int, make: Callable[[], CachedClip]) -> CachedClip:
        """Gives a clip, read or made.

        Args:
            index: of the clip.
            make: makes it if there is no sound file of it.
        """
        path = self._folder / f"{index:06d}.npz"
        known = _read(path)
        if known is not None:
            return known
        made = make()
        if self._is_writable:
            self._write(path, made)
        return made

    def _write(self, path: Path, clip: CachedClip) -> None:
        arrays = {field.name: getattr(clip, field.name) for field in fields(clip)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: np.savez(file, **arrays), durable=False)
        except OSError as error:
            self._is_writable = False
            reason = error.strerror or error
            _logger.warning("detections are not kept: %s cannot be written (%s)", path, reason)


def _read(path: Path) -> CachedClip | None:
    """Reads a file; None if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return CachedClip(**{name: arrays[name] for name in arrays.files})
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        _logger.warning("%s is damaged and made again (%s)", path, error)
        return None
