"""Faults in what slot models are given: settings, videos, weights."""

from __future__ import annotations

import numpy as np
import torch

from tests.engine.support import PLUGIN
from tests.faults.ground import TOOLS, Ground, Outcome, Survivor, fault, kept_files
from vidseg.config import load_config
from vidseg.modeling import build_model

SLOTS = "Slots"
TINY = TOOLS.parent / "projects" / "slot_bert" / "tiny_cpu.yaml"
CPU = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "SOLVER.AMP.ENABLED", "False")
ONE_STEP = (
    *("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0"),
    *("DATASETS.TEST", "()", "TEST.BEST_METRIC", "", "TEST.EVAL_PERIOD", "0"),
)


def nothing_trained(ground: Ground) -> None:
    """all files; no weights were written"""
    kept_files(ground)
    assert not list(ground.out.rglob("*.pth"))


def others_are_shown(ground: Ground) -> None:
    """the other videos: all of their files are there"""
    folder = ground.folder / "shown" / "good"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"grid.png", "panels.mp4", "panels.gif", "masks.npz", "tracks.json"}
    assert not list((ground.folder / "shown").rglob(".*.tmp"))


def nothing_shown(ground: Ground) -> None:
    """all files; no file appeared"""
    kept_files(ground)
    shown = ground.folder / "shown"
    assert not [path for path in shown.rglob("*") if path.is_file()]


def _train(ground: Ground, *words: object) -> Outcome:
    ground.patch.setenv("VIDSEG_CACHE", str(ground.folder / "cache"))
    arguments = ("--config-file", TINY, *CPU, *ONE_STEP, *words, "OUTPUT_DIR", ground.out)
    return ground.command("train_net", *arguments)


def _video(ground: Ground, name: str, *, fill: float | None = None) -> str:
    """Writes a video of 3 frames, of noise or of one value."""
    frames = np.random.default_rng(0).random((3, 24, 32, 3), dtype=np.float32)
    path = ground.folder / name
    np.save(path, frames if fill is None else np.full_like(frames, fill))
    return str(path)


def _show(ground: Ground, *words: object, fill: float | None = None) -> Outcome:
    """Shows videos with a model that has learnt nothing; its weights may be of one value."""
    from vidseg.projects.slot_bert.__main__ import main

    model = build_model(load_config(TINY, list(CPU)))
    if fill is not None:
        with torch.no_grad():
            for value in model.parameters():
                value.fill_(fill)
    weights = ground.folder / "random.pth"
    torch.save({"model": model.state_dict()}, weights)
    where = ("--weights", weights, "--output", ground.folder / "shown")
    return ground.call(main, "slot_bert", "show", "--config-file", TINY, *where, *words, *CPU)


def _setting(
    name: str, words: tuple[object, ...], says: str, *, survives: Survivor = nothing_trained
) -> None:
    @fault(SLOTS, name, says=says, code=2, survives=survives)
    def plant(ground: Ground) -> Outcome:
        return _train(ground, *words)


_setting(
    "a mistyped start of the slots",
    ("MODEL.SLOT_BERT.ATTENTION.INIT", "lerned"),
    r"config error: .*MODEL\.SLOT_BERT\.ATTENTION\.INIT is 'lerned'; nearest: learned",
)
_setting(
    "windows with gaps between them",
    ("MODEL.SLOT_BERT.TRANSFORMER.STRIDE", 99),
    r"config error: .*TRANSFORMER\.STRIDE is 99, more than the frames of a window; set it to",
)
_setting(
    "a ramp of a loss that there is not",
    ("MODEL.SLOT_BERT.LOSS.SCHEDULE", "[['apearance', 0.0, 0.5, 0.0, 1.0]]"),
    r"config error: MODEL\.SLOT_BERT\.LOSS.*: there is no loss 'apearance'; nearest: APPEARANCE",
)


@fault(
    SLOTS,
    "an unknown split of the moving shapes",
    says=r"moving_shapes_trian.*nearest: moving_shapes_train",
    code=1,
    survives=nothing_trained,
)
def unknown_split(ground: Ground) -> Outcome:
    return _train(ground, "DATASETS.TRAIN", "('moving_shapes_trian',)")


@fault(
    SLOTS,
    "one of several videos is damaged",
    says=r"error: .*bad\.npy is no array that can be read",
    code=1,
    survives=others_are_shown,
)
def damaged_video(ground: Ground) -> Outcome:
    (ground.folder / "bad.npy").write_bytes(b"\x93NUMPY")
    return _show(ground, "--input", ground.folder / "bad.npy", _video(ground, "good.npy"))


@fault(
    SLOTS,
    "one of several videos has values above 1",
    says=r"error: frame 0 of .*bright\.npy lies within 255 to 255; give uint8, or float",
    code=1,
    survives=others_are_shown,
)
def values_out_of_range(ground: Ground) -> Outcome:
    bright = _video(ground, "bright.npy", fill=255.0)
    return _show(ground, "--input", bright, _video(ground, "good.npy"))


@fault(
    SLOTS,
    "weights that have diverged",
    says=r"error: the masks of frame 0 are no numbers; the weights have diverged",
    code=1,
    survives=nothing_shown,
)
def diverged(ground: Ground) -> Outcome:
    return _show(ground, "--input", _video(ground, "good.npy"), fill=float("nan"))


@fault(
    SLOTS,
    "a model without slots",
    says=r"config error: MODEL\.META_ARCHITECTURE is '\w+', which has no slots to show",
    code=2,
    survives=nothing_shown,
)
def another_model(ground: Ground) -> Outcome:
    from vidseg.projects.slot_bert.__main__ import main

    where = ("--config-file", ground.config, "--output", ground.folder / "shown")
    video = _video(ground, "good.npy")
    return ground.call(main, "slot_bert", "show", *where, "--plugin", PLUGIN, "--input", video)
