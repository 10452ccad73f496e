"""Whole runs of small models: phase 1 leads to phase 2, and what was stopped goes on to the bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.engine.support import assert_equal, losses, stop_at, weights
from vidseg.config import load_config
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages
from vidseg.modeling import build_model
from vidseg.projects.slot_bert import SlotBERT

FOLDER = Path(__file__).resolve().parents[3] / "projects" / "slot_bert"
PRESETS = sorted(FOLDER.glob("*.yaml"))

SMALL = """
_BASE_: {base}
MODEL:
  DEVICE: cpu
  SLOT_BERT:
    ENCODER: {{STRIDES: [2, 2], CHANNELS: [8, 16]}}
    ATTENTION: {{NUM_SLOTS: 3, SLOT_DIM: 16}}
    DECODER: {{SIZE: 16, CHANNELS: 8}}
    TRANSFORMER: {{NUM_LAYERS: 1, WARMUP: 0.5}}
DATASETS: {{TEST: []}}
INPUT: {{SLOT_BERT: {{SIZE: [16, 16], NUM_FRAMES: 4, MOVING_SHAPES: {{NUM_CLIPS: 6}}}}}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER:
  IMS_PER_BATCH: 2
  MAX_ITER: 8
  WARMUP_ITERS: 2
  CHECKPOINT_PERIOD: 3
  LOG_PERIOD: 1
  INIT_FROM: '{start}'
WRITERS: [jsonl]
OUTPUT_DIR: {output}
"""


def write(folder: Path, name: str, base: str, start: str = "") -> Path:
    path = folder / f"{name}.yaml"
    text = SMALL.format(base=FOLDER / base, start=start, output=folder / "out" / name)
    path.write_text(text)
    return path


@pytest.fixture
def phase2(tmp_path: Path) -> Path:
    write(tmp_path, "first", "phase1_video.yaml")
    return write(tmp_path, "second", "phase2.yaml", "first.yaml")


def run(config: Path, *overrides: str) -> int:
    return run_stages(plan_stages(str(config), list(overrides)))


def test_phase_2_starts_from_phase_1_and_trains_the_transformer_first(
    phase2: Path, tmp_path: Path
) -> None:
    assert run(phase2) == 0
    first, second = (weights(tmp_path / "out" / name) for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert (first["transformer.output.weight"] == 0).all()
    assert (second["transformer.output.weight"] != 0).any()
    alone = weights(tmp_path / "out" / "second", "checkpoint_0000003.pth")
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], alone[name])}
    assert moved == {"transformer"}
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert moved == {"perception", "decoder", "transformer"}


@pytest.mark.parametrize(
    "stop", [pytest.param(2, id="alone"), pytest.param(6, id="together", marks=pytest.mark.slow)]
)
def test_a_stopped_run_continues_to_the_bit(
    phase2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    start = tmp_path / "out" / "first"
    assert run(tmp_path / "first.yaml") == 0
    given = ("MODEL.WEIGHTS", str(start / "model_final.pth"))
    assert run(phase2, "OUTPUT_DIR", str(tmp_path / "whole"), *given) == 0
    parts = ("OUTPUT_DIR", str(tmp_path / "parts"), *given)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        assert run(phase2, *parts) == 128 + signal.SIGTERM
    assert run(phase2, *parts) == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_builds_and_learns(path: Path) -> None:
    cfg = load_config(str(path))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    assert isinstance(model, SlotBERT)
    node = cfg.INPUT.SLOT_BERT
    frames = torch.randint(0, 256, (node.NUM_FRAMES, 3, *node.SIZE), dtype=torch.uint8)
    outputs = model([{"frames": frames, "video_id": "v"}])
    sum(value for name, value in outputs.items() if "/" not in name).backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None}
    untaught = {name for name, p in model.named_parameters() if p.requires_grad} - taught
    assert all(name.startswith("transformer") and not model.use_transformer for name in untaught)
    (prediction,) = model.eval()([{"frames": frames[:2], "video_id": "v"}])
    assert prediction["masks"].shape == (len(frames[:2]), model.num_slots, *node.SIZE)
    assert model.input_size == tuple(node.SIZE)


def test_phase_1_and_the_video_phase_agree_with_the_start_of_phase_2() -> None:
    """What phase 2 reads of its start: all but the transformer's losses and its stage."""
    first, second = (
        load_config(str(FOLDER / f"{name}.yaml")) for name in ("phase1_video", "phase2")
    )
    for part in ("ENCODER", "ATTENTION", "TIME", "DECODER", "COMPOSE", "MASK_SOURCE"):
        assert first.MODEL.SLOT_BERT[part] == second.MODEL.SLOT_BERT[part], part
    assert first.INPUT.SLOT_BERT == second.INPUT.SLOT_BERT
    assert second.SOLVER.BACKBONE_MULTIPLIER == 0.3
