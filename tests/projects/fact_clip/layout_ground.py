"""A small data set in the layout of action segmentation, to be read and to be spoilt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CLASSES = ("background", "cut_tomato", "pour_oil", "stir_salad")
WIDTH = 6


def make_layout(root: Path, *, num_videos: int = 4, transposed: bool = False) -> Path:
    """Writes videos of 20, 21, ... frames, all in both splits but the last, which is for testing.

    Returns:
        The split for training; that for testing lies beside it.
    """
    for name in ("features", "groundTruth", "splits"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"v{number}" for number in range(num_videos)]
    for number, name in enumerate(names):
        labels = np.repeat([0, 1, 2, 3, 1], 4 + (np.arange(5) < number))
        features = np.eye(len(CLASSES), WIDTH)[labels] + 0.1 * rng.normal(size=(len(labels), WIDTH))
        features = features.T if transposed else features
        np.save(root / "features" / f"{name}.npy", features.astype(np.float32))
        write_lines(root / "groundTruth" / f"{name}.txt", [CLASSES[label] for label in labels])
    write_lines(root / "mapping.txt", [f"{i} {name}" for i, name in enumerate(CLASSES)])
    write_lines(root / "splits" / "train.split1.bundle", names[:-1])
    write_lines(root / "splits" / "test.split1.bundle", [f"{name}.txt" for name in names[-1:]])
    return root / "splits" / "train.split1.bundle"


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def replace_line(path: Path, number: int, text: str) -> None:
    """Puts other words into a line, counted from 1."""
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    write_lines(path, lines)
