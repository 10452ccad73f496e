"""Draws data sets of any size in YouTube-VIS form."""

from __future__ import annotations

from typing import Any

import numpy as np

from vidseg import rle

__all__ = ["make_data"]

_HEIGHT, _WIDTH = 360, 640
_DISPLACED = 0.6  # share of the predictions

Json = dict[str, Any]


def make_data(
    *,
    videos: int,
    frames: int,
    truths: int,
    predictions: int,
    classes: int,
    same_class: float,
    seed: int = 0,
) -> tuple[Json, list[Json]]:
    """Draws annotations and results: blobs that move, with uneven outlines and absent frames.

    Six predictions in ten are a displaced ground truth, the others blobs of their own.

    Args:
        videos: number of videos, of 360x640 pixels.
        frames: frames of each.
        truths: mean number of annotated tracks of a video, from two less to two more.
        predictions: predicted tracks of a video.
        classes: number of classes.
        same_class: share of the displaced predictions that keep the class of their ground truth;
            all other classes are drawn.
        seed: decides on everything.
    """
    rng = np.random.default_rng(seed)
    gt: Json = {
        "videos": [],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(classes)],
        "annotations": [],
    }
    results = []
    for video in range(1, videos + 1):
        size = {"height": _HEIGHT, "width": _WIDTH, "length": frames}
        gt["videos"].append({"id": video, "file_names": [], **size})
        shown = []
        for _ in range(max(1, truths + int(rng.integers(-2, 3)))):
            blob, category = _blob(rng, frames), int(rng.integers(1, classes + 1))
            shown.append((blob, category))
            masks = _masks(rng, blob, frames, roughness=0.3)
            gt["annotations"].append(
                {
                    "id": len(gt["annotations"]) + 1,
                    "video_id": video,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentations": masks,
                    **_boxes_and_areas(masks),
                }
            )
        for _ in range(predictions):
            blob, category = _blob(rng, frames), int(rng.integers(1, classes + 1))
            score = rng.beta(1, 6)
            if rng.random() < _DISPLACED:
                original, true_category = shown[rng.integers(len(shown))]
                distance = rng.choice([0.03, 0.08, 0.2, 0.4])
                blob = _displaced(rng, original, distance)
                score = rng.beta(4, 2) * (1 - distance)
                if rng.random() < same_class:
                    category = true_category
            masks = _masks(rng, blob, frames, roughness=0.5)
            results.append(
                {
                    "video_id": video,
                    "category_id": category,
                    "score": float(score),
                    "segmentations": masks,
                }
            )
    return gt, results


def _blob(rng: np.random.Generator, frames: int) -> Json:
    scale = np.exp(rng.uniform(np.log(0.04), np.log(0.35)))
    return {
        "centre": rng.uniform(0.1, 0.9, 2) * (_HEIGHT, _WIDTH),
        "speed": rng.normal(0, 2, 2),
        "radii": scale * rng.uniform(0.6, 1.2, 2) * (_HEIGHT, 0.7 * _WIDTH),
        "phases": rng.uniform(0, 2 * np.pi, 3),
        "waves": rng.uniform(0.02, 0.12, 3),
        "first": 0 if rng.random() < 0.7 else int(rng.integers(0, frames // 2)),
        "last": frames if rng.random() < 0.7 else int(rng.integers(frames // 2, frames)),
    }


def _displaced(rng: np.random.Generator, blob: Json, distance: float) -> Json:
    moved = {
        "centre": blob["centre"] + rng.normal(0, distance, 2) * blob["radii"],
        "radii": blob["radii"] * np.exp(rng.normal(0, distance, 2)),
        "phases": blob["phases"] + rng.normal(0, distance, 3),
    }
    return {**blob, **moved}


def _masks(
    rng: np.random.Generator, blob: Json, frames: int, *, roughness: float
) -> list[Json | None]:
    """Draws a blob in every frame, as json; ``roughness`` in pixels."""
    masks: list[Json | None] = []
    for frame in range(frames):
        y, x = blob["centre"] + frame * blob["speed"]
        height, width = blob["radii"]
        columns = np.arange(max(0, int(x - width) + 1), min(_WIDTH, int(x + width) + 1))
        u = (columns - x) / width
        half = np.sqrt(np.maximum(0, 1 - u * u)) * height
        angles = np.outer((6, 9, 12), u) + blob["phases"][:, None] + 0.1 * frame
        wave = blob["waves"] @ np.sin(angles) * height
        noise = rng.normal(0, roughness, (2, len(columns)))
        tops, ends = y - half + wave / 2 + noise[0], y + half + wave + noise[1]
        limits = np.clip(np.rint([tops, ends]), 0, _HEIGHT).astype(int)
        is_shown = limits[1] > limits[0]
        if not blob["first"] <= frame < blob["last"] or not is_shown.any():
            masks.append(None)
            continue
        edges = (columns[is_shown] * _HEIGHT + limits[:, is_shown]).T.ravel()
        # two columns that touch are one run
        touches = np.flatnonzero(np.diff(edges) == 0)
        edges = np.delete(edges, np.concatenate([touches, touches + 1]))
        runs = np.diff(edges, prepend=0, append=_HEIGHT * _WIDTH).tolist()
        counts = {"size": [_HEIGHT, _WIDTH], "counts": runs}
        masks.append(rle.to_text(rle.from_text(counts)))
    return masks


def _boxes_and_areas(masks: list[Json | None]) -> Json:
    shown = [mask for mask in masks if mask is not None]
    areas, boxes = iter(rle.area(shown).tolist()), iter(rle.boxes(shown).tolist())
    return {
        "areas": [None if mask is None else next(areas) for mask in masks],
        "bboxes": [None if mask is None else next(boxes) for mask in masks],
    }
