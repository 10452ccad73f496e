"""Data, configs and results of runs of the toy plugin."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vidseg.checkpoint.files import read_checkpoint
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages
from vidseg.engine.trainer import Trainer

PLUGIN = str(Path(__file__).with_name("toy_plugin.py"))


def make_dataset(folder: Path, num_videos: int = 4, num_frames: int = 3) -> Path:
    """Writes videos of noise, each with one object, in YouTube-VIS form; returns the json file."""
    rng = np.random.default_rng(0)
    videos, annotations = [], []
    for number in range(1, num_videos + 1):
        names = [f"{number}/{frame}.png" for frame in range(num_frames)]
        for name in names:
            path = folder / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(path)
        videos.append(
            {"id": number, "file_names": names, "height": 24, "width": 32, "length": num_frames}
        )
        square = [[4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]]
        annotations.append(
            {
                "id": number,
                "video_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "segmentations": [square] * num_frames,
                "bboxes": [[4, 4, 16, 16]] * num_frames,
                "areas": [256] * num_frames,
            }
        )
    content = {
        "videos": videos,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "square"}],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


CONFIG = """
MODEL:
  META_ARCHITECTURE: ToySegmenter
  DEVICE: cpu
  SEM_SEG_HEAD: {NUM_CLASSES: 1}
INPUT:
  MIN_SIZE_TRAIN: [16]
  MAX_SIZE_TRAIN: 32
  MIN_SIZE_TEST: 16
  MAX_SIZE_TEST: 32
  SAMPLING_FRAME_NUM: 2
  SAMPLING_FRAME_RANGE: 2
DATALOADER: {NUM_WORKERS: 0}
SOLVER:
  IMS_PER_BATCH: 2
  BASE_LR: 0.01
  MAX_ITER: 8
  STEPS: [6]
  WARMUP_ITERS: 2
  CHECKPOINT_PERIOD: 3
  LOG_PERIOD: 2
WRITERS: [jsonl]
"""


def write_config(folder: Path, dataset: Path, name: str = "toy", extra: str = "") -> Path:
    """Writes a config that trains the toy model on a data set; its output goes beside it."""
    path = folder / f"{name}.yaml"
    data = f"DATASETS:\n  TRAIN: ['{dataset}']\n  TEST: ['{dataset}']\n"
    path.write_text(f"{CONFIG}{data}OUTPUT_DIR: {folder / 'output' / name}\n{extra}")
    return path


def run(config: Path, *overrides: Any, **options: Any) -> int:
    stages = plan_stages(str(config), [str(word) for word in overrides], [PLUGIN])
    return run_stages(stages, plugins=[PLUGIN], **options)


def weights(directory: Path, name: str = "model_final.pth") -> dict[str, torch.Tensor]:
    return read_checkpoint(directory / name)["model"]


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def losses(directory: Path) -> list[tuple[int, float]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [(e["iteration"], e["total_loss"]) for e in entries if "total_loss" in e]


def stop_at(monkeypatch: pytest.MonkeyPatch, iteration: int, number: int = signal.SIGTERM) -> None:
    """Makes the process send itself a signal after an iteration, once."""
    original = Trainer._step

    def step(self: Trainer, samples: list[dict[str, Any]]) -> None:
        original(self, samples)
        if self.iteration + 1 == iteration:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "_step", step)
