"""Faults in what a command is given: config, weights, videos, predictions."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.faults.ground import (
    Ground,
    Outcome,
    Survivor,
    Trap,
    cut,
    fault,
    kept_files,
    nothing_begun,
)
from vidseg.video.io import VideoWriter

CONFIG = "Configs and command lines"
WEIGHTS = "Weights"
VIDEOS = "Videos of tools/demo.py"
PREDICTIONS = "Predictions of tools/evaluate.py"
CASE = Path(__file__).parents[1] / "golden" / "ytvis_eval" / "tiny_by_hand"


def _given(
    name: str,
    words: tuple[object, ...],
    says: str,
    *,
    code: int = 2,
    survives: Survivor = nothing_begun,
) -> None:
    @fault(CONFIG, name, says=says, code=code, survives=survives)
    def plant(ground: Ground) -> Outcome:
        return ground.train(*words)


_given(
    "an unknown key",
    ("SOLVER.MAX_ITR", 5),
    r"unknown key SOLVER\.MAX_ITR .*did you mean",
)
_given("a value of another type", ("SOLVER.MAX_ITER", "ten"), r"SOLVER\.MAX_ITER")
_given("a key without a value", ("SOLVER.MAX_ITER",), r"config error: .*no partner")
_given("an impossible number", ("SOLVER.IMS_PER_BATCH", 0), r"IMS_PER_BATCH of toy is 0; set 1 or")
_given("an unknown data set", ("DATASETS.TRAIN", "('ovis_trian',)"), "nearest: ovis_train", code=1)
_given(
    "an unknown model",
    ("MODEL.META_ARCHITECTURE", "ToySegmente"),
    r"META_ARCH 'ToySegmente' is not .*ToySegmenter",
    survives=kept_files,
)


def _yaml_becomes(name: str, content: bytes, says: str) -> None:
    @fault(CONFIG, name, says=says, code=2, survives=nothing_begun)
    def plant(ground: Ground) -> Outcome:
        ground.config.write_bytes(content)
        ground.keep(ground.config)
        return ground.train()


_yaml_becomes("a config file that is no yaml", b"MODEL: [1, {\n", r"config error: .*toy\.yaml")
_yaml_becomes("a config file of bytes", bytes(range(256)), r"config error: .*toy\.yaml")


@fault(
    CONFIG,
    "an unknown backbone",
    says=r"'build_resnet_backbon' .*build_resnet_backbone",
    code=2,
    survives=kept_files,
)
def unknown_backbone(ground: Ground) -> Outcome:
    picture = ground.dataset.parent / "JPEGImages" / "1" / "0.png"
    ground.keep(picture)
    weights = ground.folder / "w.pth"
    torch.save({"model": {}}, weights)
    backbone = ("MODEL.BACKBONE.NAME", "build_resnet_backbon")
    return ground.show(picture, weights=weights, words=backbone)


def _weights_are(name: str, make: Callable[[Path], object], says: str, suffix: str = "pth") -> None:
    @fault(WEIGHTS, name, says=says, code=1, survives=kept_files)
    def plant(ground: Ground) -> Outcome:
        path = ground.folder / f"weights.{suffix}"
        make(path)
        if path.is_file():
            ground.keep(path)
        outcome = ground.train("MODEL.WEIGHTS", path)
        assert not (ground.folder / "executed").exists()
        return outcome


def _save(path: Path) -> None:
    torch.save({"model": {"head.weight": torch.ones(1, 4)}}, path)


def _cut(path: Path) -> None:
    _save(path)
    path.write_bytes(cut(path))


_weights_are("weights are missing", lambda path: None, r"weights file .* does not exist")
_weights_are("weights are a folder", Path.mkdir, r"weights .* is a folder")
_weights_are("weights cut in half", _cut, r"weights\.pth is damaged or no checkpoint")
_weights_are("weights are text", lambda p: p.write_text("<html>" * 99), r"weights\.pth is damaged")
_weights_are(
    "weights hold code",
    lambda path: torch.save({"model": Trap(path.with_name("executed"))}, path),
    r"holds Python objects besides tensors, which are not loaded because they can run code",
)
_weights_are(
    "weights of a pickle hold code",
    lambda path: path.write_bytes(pickle.dumps({"model": Trap(path.with_name("executed"))})),
    r"weights\.pkl asks for (posix|nt)\.system, which is not loaded",
    suffix="pkl",
)


def others_are_shown(ground: Ground) -> None:
    """the other inputs: they are shown, and nothing is left of the damaged one"""
    shown = ground.folder / "shown"
    assert [path.name for path in shown.iterdir()] == ["good"]
    assert (shown / "good" / "overlay.mp4").stat().st_size > 0


def what_decodes_is_shown(ground: Ground) -> None:
    """every frame that decodes"""
    assert (ground.folder / "shown" / "bad" / "overlay.mp4").stat().st_size > 0


def _video(path: Path, num_frames: int = 12) -> Path:
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps=10) as writer:
        for _ in range(num_frames):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    return path


def _video_is(name: str, content: Callable[[bytes], bytes], says: str) -> None:
    @fault(VIDEOS, name, says=says, code=1, survives=others_are_shown)
    def plant(ground: Ground) -> Outcome:
        good = _video(ground.folder / "good.mp4", 2)
        bad = ground.folder / "bad.mp4"
        bad.write_bytes(content(_video(bad).read_bytes()))
        return ground.show(bad, good)


_video_is("an empty video", lambda whole: b"", r"error: .*bad\.mp4")
_video_is("text in place of a video", lambda whole: b"no video" * 99, r"error: .*bad\.mp4")
_video_is("a video without frames", lambda whole: whole[:40], r"error: .*bad\.mp4")


@fault(
    VIDEOS,
    "a video whose second half is missing",
    says=r"bad\.mp4.*(damaged|decode|announce|of 12)",
    code=0,
    survives=what_decodes_is_shown,
)
def half_a_video(ground: Ground) -> Outcome:
    bad = _video(ground.folder / "bad.mp4")
    bad.write_bytes(cut(bad, 0.6))
    return ground.show(bad)


def _predictions_are(name: str, content: Callable[[Path], bytes], says: str) -> None:
    @fault(PREDICTIONS, name, says=says, code=1, survives=kept_files)
    def plant(ground: Ground) -> Outcome:
        results, output = ground.folder / "results.json", ground.folder / "metrics.json"
        results.write_bytes(content(CASE / "results.json"))
        output.write_text("{}")
        ground.keep(results, output)
        files = ["--gt", CASE / "gt.json", "--results", results, "--output", output]
        return ground.command("evaluate", "ytvis", *files)


_predictions_are("predictions cut in half", cut, r"results\.json is not valid json: ")
_predictions_are("predictions are empty", lambda path: b"", r"results\.json is not valid json: ")
_predictions_are(
    "annotations in place of predictions",
    lambda path: path.with_name("gt.json").read_bytes(),
    r"is not a results file",
)
_predictions_are(
    "predictions for an unknown video",
    lambda path: b'[{"video_id": 99, "category_id": 1, "score": 1, "segmentations": []}]',
    r"entry 0 has video_id 99",
)
