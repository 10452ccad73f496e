"""Faults in what object persistence is given: clips, settings, weights, caches, runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.faults.ground import TOOLS, Ground, Outcome, Survivor, cut, fault, kept_files
from vidseg.config import load_config
from vidseg.modeling import build_model
from vidseg.video.io import VideoWriter

PERSISTENCE = "Object persistence"
REPORTS = "Reports and ablations"
SAME = TOOLS.parent / "projects" / "persistence" / "same.yaml"
MODEL = (
    *("MODEL.PERSISTENCE.HIDDEN_DIM", "16", "MODEL.PERSISTENCE.NHEADS", "2"),
    *("MODEL.PERSISTENCE.NUM_LAYERS", "1", "MODEL.PERSISTENCE.DIM_FEEDFORWARD", "16"),
    *("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"),
)
ONE_STEP = (
    *("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0"),
    *("DATASETS.TEST", "()", "TEST.BEST_METRIC", "", "TEST.EVAL_PERIOD", "0"),
)


def nothing_trained(ground: Ground) -> None:
    """all files; no weights were written"""
    kept_files(ground)
    assert not list(ground.out.rglob("*.pth"))


def all_clips_scored(ground: Ground) -> None:
    """the evaluation: every clip has its result"""
    assert (ground.out / "inference" / "data_instances" / "report.md").is_file()
    assert not list(ground.out.rglob("damaged.json"))


def trained(ground: Ground) -> None:
    """the run: it ends with its weights"""
    assert (ground.out / "model_final.pth").is_file()


def _train(ground: Ground, *words: object) -> Outcome:
    ground.patch.setenv("VIDSEG_CACHE", str(ground.folder / "cache"))
    arguments = ("--config-file", SAME, *MODEL, *ONE_STEP, *words, "OUTPUT_DIR", ground.out)
    return ground.command("train_net", *arguments)


def _evaluate(
    ground: Ground, *words: str, change: Callable[[torch.Tensor], object] = lambda value: None
) -> Outcome:
    """Evaluates a model that has learnt nothing on videos of noise."""
    model = build_model(load_config(SAME, list(MODEL)))
    with torch.no_grad():
        for value in model.parameters():
            change(value)
    weights = ground.folder / "random.pth"
    torch.save({"model": model.state_dict()}, weights)
    data = ("DATASETS.TEST", f"('{ground.dataset}',)")
    kind = ("DATASETS.DATASET_TYPE_TEST", "['object_tokens']", "DATASETS.TRAIN", "()")
    arguments = ("--config-file", SAME, "--eval-only", *MODEL, *data, *kind, *words)
    return ground.command(
        "train_net", *arguments, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", ground.out
    )


def _given(
    name: str,
    words: tuple[object, ...],
    says: str,
    *,
    code: int = 2,
    survives: Survivor = nothing_trained,
) -> None:
    @fault(PERSISTENCE, name, says=says, code=code, survives=survives)
    def plant(ground: Ground) -> Outcome:
        return _train(ground, *words)


_given(
    "no clip with a detection",
    ("MODEL.PERSISTENCE.DETECTOR.THRESHOLD", 9, "DATALOADER.MAX_ATTEMPTS", 4),
    r"error: 4 clips in a row teach nothing \(no detections: 4\), the first of video "
    r"same_train_\d+; look at the data, or raise DATALOADER\.MAX_ATTEMPTS \(4\)",
    code=1,
)
_given(
    "an unknown variant of the clips",
    ("DATASETS.TRAIN", "('persistence_sme_train',)"),
    r"persistence_sme_train.*nearest: persistence_same_train",
    code=1,
)
_given(
    "a mistyped option of the model",
    ("MODEL.PERSISTENCE.RELATIVE_BIAS", "motoin"),
    r"config error: .*MODEL\.PERSISTENCE\.RELATIVE_BIAS is 'motoin'; nearest: motion",
)
_given(
    "weights of the confidence that do not sum to 1",
    ("MODEL.PERSISTENCE.DETECTOR.CONFIDENCE_WEIGHTS", "[0.5, 0.3, 0.3]"),
    r"MODEL\.PERSISTENCE\.DETECTOR\.CONFIDENCE_WEIGHTS .*1",
)
_given(
    "a share of wrong labels above 1",
    ("INPUT.PERSISTENCE.LABEL_NOISE", 2.0),
    r"INPUT\.PERSISTENCE\.LABEL_NOISE is 2\.0; give a share in \[0, 1\]",
)


@fault(
    PERSISTENCE,
    "training on videos that do not say what stays",
    says=r"instances\.json does not say which objects are persistent .*persistence_same_train",
    code=1,
    survives=nothing_trained,
)
def videos_without_persistence(ground: Ground) -> Outcome:
    return _train(ground, "DATASETS.TRAIN", f"('{ground.dataset}',)")


@fault(
    PERSISTENCE,
    "damaged files in the cache of detections",
    says=r"00\d+\.npz is damaged and made again",
    code=0,
    survives=trained,
)
def damaged_cache(ground: Ground) -> Outcome:
    assert _train(ground).code == 0
    files = sorted((ground.folder / "cache" / "persistence").rglob("*.npz"))
    assert files
    for path in files:
        path.write_bytes(cut(path))
    ground.out = ground.folder / "again"
    outcome = _train(ground)
    assert all(dict(np.load(path)) for path in files)
    return outcome


@fault(
    PERSISTENCE,
    "a cache folder that cannot be made",
    says=r"detections are not kept: .*cannot be written",
    code=0,
    survives=trained,
)
def no_cache(ground: Ground) -> Outcome:
    (ground.folder / "cache").write_text("a file in the place of the folder")
    return _train(ground)


@fault(
    PERSISTENCE,
    "more detections than tokens",
    says=r"MODEL\.PERSISTENCE\.MAX_TOKENS",
    code=0,
    survives=all_clips_scored,
)
def too_many_tokens(ground: Ground) -> Outcome:
    sensitive = ("MODEL.PERSISTENCE.DETECTOR.THRESHOLD", "0.01")
    return _evaluate(ground, *sensitive, "MODEL.PERSISTENCE.MAX_TOKENS", "3")


@fault(
    PERSISTENCE,
    "weights that have diverged",
    says=r"error: the model's decisions on clip 1 are no numbers; its weights have diverged",
    code=2,
    survives=kept_files,
)
def diverged(ground: Ground) -> Outcome:
    ground.keep(ground.dataset)
    sensitive = ("MODEL.PERSISTENCE.DETECTOR.THRESHOLD", "0.01")
    return _evaluate(ground, *sensitive, change=lambda value: value.fill_(float("nan")))


def black_video_is_shown(ground: Ground) -> None:
    """the result: a video and a file without tracks"""
    assert list(ground.folder.rglob("overlay.mp4"))
    assert list(ground.folder.rglob("results.json"))


@fault(
    PERSISTENCE,
    "a video without any blob, in tools/demo.py",
    says=r"no blob in any of \d+ frames",
    code=0,
    survives=black_video_is_shown,
)
def black_video(ground: Ground) -> Outcome:
    path = ground.folder / "black.mp4"
    with VideoWriter(path, fps=5.0) as writer:
        for number in range(10):
            writer.write(np.zeros((48, 64, 3), dtype=np.uint8), time=number / 5)
    weights = ground.folder / "random.pth"
    torch.save({"model": build_model(load_config(SAME, list(MODEL))).state_dict()}, weights)
    where = ("--input", path, "--output", ground.folder / "shown", "--weights", weights)
    return ground.command("demo", "--config-file", SAME, *where, *MODEL)


@fault(
    REPORTS,
    "a folder without runs",
    says=r"error: --input .* holds no run of ObjectPersistence",
    code=1,
    survives=kept_files,
)
def no_runs(ground: Ground) -> Outcome:
    from vidseg.projects.persistence.__main__ import main

    return ground.call(main, "persistence", "report", "--input", ground.folder)


def others_are_reported(ground: Ground) -> None:
    """the other runs: they are on the page"""
    assert "good" in (ground.out / "report" / "report.md").read_text()


@fault(
    REPORTS,
    "final_metrics.json of a run cut in half",
    says=r"error: .*bad/final_metrics\.json is not valid json: .*; it is left out",
    code=1,
    survives=others_are_reported,
)
def damaged_metrics(ground: Ground) -> Outcome:
    from vidseg.projects.persistence.__main__ import main

    for name, metrics in (("good", '{"iteration": 1, "metrics": {}}'), ("bad", '{"iterat')):
        folder = ground.out / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("MODEL: {META_ARCHITECTURE: ObjectPersistence}")
        (folder / "final_metrics.json").write_text(metrics)
    return ground.call(main, "persistence", "report", "--input", ground.out)


@fault(
    REPORTS,
    "a variant that does not exist",
    says=r"config error: --only: .* holds no variant 'no_nul_key'; nearest: no_null_key",
    code=2,
    survives=nothing_trained,
)
def unknown_variant(ground: Ground) -> Outcome:
    words = ("--config-file", SAME, "--output", ground.out, "--only", "no_nul_key")
    return ground.command("ablation", *words)


def the_others_are_in_the_table(ground: Ground) -> None:
    """the other runs: they are in the table"""
    rows = [
        line for line in (ground.out / "ablation.md").read_text().splitlines() if "toy " in line
    ]
    assert rows
    assert " of 1" not in rows[0]


@fault(
    REPORTS,
    "a variant whose training diverges",
    says=r"error: 1 of 2 runs failed \(hot, seed 42: 1 steps in a row",
    code=1,
    survives=the_others_are_in_the_table,
)
def diverging_variant(ground: Ground) -> Outcome:
    from tests.engine.support import PLUGIN

    variant = Path(ground.config).parent / "ablation" / "hot.yaml"
    variant.parent.mkdir()
    variant.write_text(
        "_BASE_: ../toy.yaml\nSOLVER: {BASE_LR: 1.0e+30, MAX_NAN_STEPS: 1, WARMUP_ITERS: 0}\n"
    )
    words = ("--config-file", ground.config, "--plugin", PLUGIN, "--output", ground.out)
    return ground.command("ablation", *words)
