"""Tracks objects through a folder of pictures with exported ONNX files; needs no vidseg, no torch.

    python tools/export.py --config-file projects/dvis_daq/online.yaml --format onnx \
        --output output/exported
    python examples/run_exported.py output/exported frames/ output/found

Every picture gets a label map in the last folder, in which the pixels of track n are n + 1, and
tracks.jsonl a line per picture. Needs numpy, Pillow and onnxruntime.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

CONFIDENCE = 0.3  # of tracks that are drawn
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass
class Track:
    """An object in one frame; its score is that of the whole track so far."""

    id: int
    label: str
    score: float
    mask: np.ndarray  # bool (height, width)


class ExportedTracker:
    """Runs the two graphs over one video, frame by frame.

    Args:
        folder: what tools/export.py wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "export.json").read_text())
        self.parts = {part["name"]: part for part in self.about["parts"]}
        if "tracker" not in self.parts or "onnx" not in self.parts["tracker"]["files"]:
            sys.exit(f"{folder} holds no tracker as ONNX; export an online model, --format onnx")
        self.sessions = {
            name: onnxruntime.InferenceSession(folder / part["files"]["onnx"])
            for name, part in self.parts.items()
        }
        self.num_dropped = 0  # objects for which the state had no room, so far
        self.state = {
            entry["name"]: np.full(entry["shape"], entry["first"], entry["dtype"])
            for entry in self.parts["tracker"]["inputs"]
            if "first" in entry
        }

    def step(self, image: Image.Image) -> list[Track]:
        """Gives the objects of the next frame, best first."""
        small = image.convert("RGB").resize(self._network_size(image), Image.Resampling.BILINEAR)
        pixels = np.asarray(small).transpose(2, 0, 1)[None]  # (1, 3, height, width)
        segmenter, tracker = self.parts["segmenter"], self.parts["tracker"]
        frames = {"frames": pixels.astype(segmenter["inputs"][0]["dtype"])}
        segmented = self._run("segmenter", frames)
        wanted = [entry["name"] for entry in tracker["inputs"] if "first" not in entry]
        given = {name: segmented[name][0] for name in wanted}
        found = self._run("tracker", given | self.state)
        self.state = {name: found[f"new_{name}"] for name in self.state}
        self.num_dropped += int(found["dropped"])
        alive = int((self.state["ids"] >= 0).sum())  # tracks fill the first rows
        return [
            Track(
                int(self.state["ids"][row]),
                self._label(label),
                score,
                full_mask(found["mask_logits"][row], small.size[::-1], image.size[::-1]),
            )
            for row, label, score in best_pairs(
                found["scores"][:alive], found["quality"][:alive], tracker
            )
        ]

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [entry["name"] for entry in self.parts[name]["outputs"]]
        return dict(zip(names, self.sessions[name].run(names, inputs), strict=True))

    def _network_size(self, image: Image.Image) -> tuple[int, int]:
        """Gives (width, height) with the shorter side that the model was tested with."""
        short, long = self.about["resize"]["min_size"], self.about["resize"]["max_size"]
        if not short:
            return image.size
        scale = min(short / min(image.size), long / max(image.size))
        width, height = (max(int(scale * side + 0.5), 1) for side in image.size)
        return width, height

    def _label(self, number: int) -> str:
        classes = self.about["classes"]
        return classes[number] if classes else str(number)


def best_pairs(scores: np.ndarray, quality: np.ndarray, settings: dict) -> list:
    """Picks the best pairs of track and class.

    Args:
        scores: (tracks, classes).
        quality: of the masks, (tracks,).
        settings: of the tracker in export.json.

    Returns:
        (row, class, score), best first.
    """
    if settings["one_label_per_track"]:
        labels = scores.argmax(1)
        rows = np.argsort(-scores.max(1), kind="stable")[: settings["max_num"]]
        pairs = [(row, labels[row]) for row in rows]
    else:
        places = np.argsort(-scores, axis=None, kind="stable")[: settings["max_num"]]
        pairs = [divmod(place, scores.shape[1]) for place in places]
    if settings["mask_quality"]:
        scores = scores * quality[:, None]
    rated = [(row, int(label), float(scores[row, label])) for row, label in pairs]
    return sorted(rated, key=lambda pair: -pair[2])


def full_mask(logits: np.ndarray, seen: tuple, size: tuple) -> np.ndarray:
    """Enlarges mask logits to a frame: (h, w) to bool (height, width).

    Args:
        logits: of the padded frame, at a quarter of its size.
        seen: (height, width) of the frame that the segmenter was given, before padding.
        size: (height, width) of the frame.
    """
    for axis in (0, 1):
        matrix = bilinear(logits.shape[axis], 4 * logits.shape[axis])[: seen[axis]]
        if seen[axis] != size[axis]:
            matrix = bilinear(seen[axis], size[axis]) @ matrix
        logits = np.moveaxis(np.tensordot(matrix, logits, (1, axis)), 0, axis)
    return logits > 0


def bilinear(cells: int, length: int) -> np.ndarray:
    """Gives the matrix that resizes an axis, (length, cells)."""
    place = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
    low = np.minimum(place.astype(int), max(cells - 2, 0))
    rows = np.arange(length)
    matrix = np.zeros((length, cells), np.float32)
    matrix[rows, low] = 1 - (place - low)
    matrix[rows, np.minimum(low + 1, cells - 1)] += place - low
    return matrix


def main(exported: str, pictures: str, output: str) -> None:
    """Tracks through a folder of pictures, in the order of their names."""
    tracker = ExportedTracker(Path(exported))
    Path(output).mkdir(parents=True, exist_ok=True)
    with (Path(output) / "tracks.jsonl").open("w") as lines:
        for file in sorted(Path(pictures).iterdir()):
            if file.suffix.lower() not in SUFFIXES:
                continue
            image = Image.open(file)
            tracks = [track for track in tracker.step(image) if track.score >= CONFIDENCE]
            labels = np.zeros(image.size[::-1], np.uint16)
            for track in reversed(tracks):
                labels[track.mask] = track.id + 1
            Image.fromarray(labels).save(Path(output) / f"{file.stem}.png")
            told = [{"id": t.id, "label": t.label, "score": round(t.score, 3)} for t in tracks]
            print(json.dumps({"frame": file.name, "tracks": told}), file=lines)
    print(f"{len(list(Path(output).glob('*.png')))} label maps in {output}")
    if tracker.num_dropped:
        print(f"{tracker.num_dropped} objects left out: export with a larger --max-tracks")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
