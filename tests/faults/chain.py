"""The chain of DVIS-DAQ at a size at which a stage takes seconds, as commands of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from vidseg.checkpoint.files import read_checkpoint
from vidseg.data.synthetic import generate_split

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "train_net.py"
STAGES = ("segmenter", "online", "offline")
MAX_ITER = 10
PERIOD = 3  # of the checkpoints
WORDS = (
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DEC_LAYERS", 2),
    *("SOLVER.MAX_ITER", MAX_ITER, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.CHECKPOINT_PERIOD", PERIOD),
    *("SOLVER.LOG_PERIOD", 1, "SOLVER.WARMUP_ITERS", 2, "INPUT.STEPS", "[5]"),
    *("online:INPUT.USING_FRAME_NUM", "[2, 3]", "online:INPUT.SAMPLING_FRAME_NUM", 3),
    *("offline:INPUT.USING_FRAME_NUM", "[2, 3]", "offline:INPUT.SAMPLING_FRAME_NUM", 3),
    *("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 1),
)


def make_data(folder: Path) -> Path:
    """Generates eight short videos; returns the json file."""
    generate_split(folder / "shapes", "easy", seed=7, num_videos=8, length=6)
    return folder / "shapes" / "instances.json"


def command(data: Path, output: Path, *words: object, stage: str = "offline") -> list[str]:
    """Gives the command that trains the chain up to a stage."""
    config = ROOT / "projects" / "dvis_daq" / f"{stage}.yaml"
    reached = STAGES[: STAGES.index(stage) + 1]
    own: list[object] = []
    for key, value in zip(WORDS[::2], WORDS[1::2], strict=True):
        if ":" not in str(key) or str(key).partition(":")[0] in reached:
            own += [key, value]
    sets = ("DATASETS.TRAIN", f"('{data}',)", "DATASETS.TEST", "()")
    arguments = (TOOL, "--config-file", config, *words, "OUTPUT_DIR", output, *sets, *own)
    return [str(word) for word in arguments]


def run(words: list[str], *launcher: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end, one thread."""
    full = [sys.executable, *launcher, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(full, capture_output=True, text=True, timeout=280, env=environment)


def folder_of(output: Path, stage: str, last: str = "offline") -> Path:
    """Gives the run directory of a stage."""
    return output if stage == last else output / stage


def losses(folder: Path) -> list[dict[str, Any]]:
    """Gives the lines of metrics.jsonl without times and memory."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    drop = ("time", "data_time", "max_mem")
    return [{k: v for k, v in entry.items() if k not in drop} for entry in entries]


def assert_same_weights(first: Path, second: Path) -> None:
    """Compares final weights to the bit."""
    one, two = (read_checkpoint(folder / "model_final.pth")["model"] for folder in (first, second))
    assert one.keys() == two.keys()
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []
