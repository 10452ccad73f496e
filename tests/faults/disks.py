"""Disks without room: every kind of file that a command writes meets one.

Mostly the limit on the size of files stands for the disk: the system refuses a write in the same
way, with a reason of its own ("File too large").
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.faults.ground import (
    Ground,
    Outcome,
    Survivor,
    choke,
    fault,
    kept_files,
    resumes,
    same_run,
    tool_module,
)
from vidseg.checkpoint import Checkpointer, checkpointer
from vidseg.data import synthetic
from vidseg.engine import report
from vidseg.engine.hooks import CheckpointHook
from vidseg.engine.run_dir import RunDirectory
from vidseg.engine.writers import JsonLinesWriter, TensorBoardWriter
from vidseg.evaluation import ytvis_evaluator
from vidseg.video.io import VideoWriter

FIVE_CLASSES = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5)  # of the embedded data set
GROUP = "Full disks"
WAY_OUT = r"File too large; raise the limit on the size of files"


def _full_while(
    what: str,
    owner: Any,
    name: str,
    says: str,
    *,
    code: int = 0,
    survives: Survivor = same_run,
    words: tuple[str, ...] = (),
    **options: Any,
) -> None:
    @fault(GROUP, f"no room for {what}", says=says, code=code, survives=survives)
    def plant(ground: Ground) -> Outcome:
        choke(ground.patch, owner, name, **options)
        return ground.train(*words)


_full_while(
    "a checkpoint",
    Checkpointer,
    "save_periodic",
    r"the checkpoint of iteration 3 could not be written \(.*File too large.*the run goes on",
)
_full_while(
    "last_checkpoint",
    checkpointer,
    "write_atomically",
    r"the checkpoint of iteration 3 could not be written \(.*last_checkpoint.*the run goes on",
    when=lambda path, write: path.name == "last_checkpoint",
)
_full_while(
    "the checkpoint at the end",
    CheckpointHook,
    "after_train",
    rf"error: .*checkpoint_0000008\.pth: {WAY_OUT}",
    code=1,
    survives=resumes,
)
_full_while(
    "the final weights",
    Checkpointer,
    "save",
    rf"error: .*model_final\.pth: {WAY_OUT}",
    code=1,
    survives=resumes,
    when=lambda self, name, content: name == "model_final.pth",
)
_full_while(
    "the weights of the best evaluation",
    Checkpointer,
    "save",
    r"weights of iteration 2, among the best so far, could not be written .*the run goes on",
    words=("TEST.EVAL_PERIOD", "2", "TEST.BEST_METRIC", "segm/AR1"),
    when=lambda self, name, content: name.startswith("model_best"),
)
_full_while(
    "metrics.jsonl",
    JsonLinesWriter,
    "write",
    r"ERROR: JsonLinesWriter cannot write \(.*File too large.*the run goes on and tries again",
    when=lambda self, iteration, scalars: iteration in (2, 4),
    times=2,
)
_full_while(
    "log.txt",
    report._LogFileHandler,
    "emit",
    r"error: .*log\.txt: File too large; the run goes on",
    times=9,
    when=lambda self, record: record.getMessage().startswith("eta: "),
)
_full_while(
    "config.yaml",
    RunDirectory,
    "write_config",
    rf"error: .*config\.yaml: {WAY_OUT}",
    code=1,
    survives=resumes,
)
_full_while(
    "results.json",
    ytvis_evaluator,
    "write_results",
    r"error: cannot write .*results\.json: File too large",
    code=1,
    survives=resumes,
)
_full_while(
    "final_metrics.json",
    RunDirectory,
    "write_metrics",
    rf"error: .*final_metrics\.json: {WAY_OUT}",
    code=1,
    survives=resumes,
)
_full_while(
    "the overlay video",
    VideoWriter,
    "close",
    r"WARNING: no overlay video: cannot write .*overlay_1\.mp4: .*File too large",
)


@fault(
    GROUP,
    "no room for TensorBoard events",
    says=r"ERROR: TensorBoardWriter cannot write \(.*File too large.*the run goes on",
    code=0,
    survives=same_run,
)
def events(ground: Ground) -> Outcome:
    pytest.importorskip("tensorboard")
    write = TensorBoardWriter.write

    def flushed(self: TensorBoardWriter, iteration: int, scalars: dict[str, float]) -> None:
        write(self, iteration, scalars)
        self._events.flush()  # else a thread writes whenever it likes

    ground.patch.setattr(TensorBoardWriter, "write", flushed)
    choke(ground.patch, TensorBoardWriter, "write", times=2)
    return ground.train("WRITERS", "('jsonl', 'tensorboard')")


def same_run_with_room(ground: Ground) -> None:
    """the run: after making room, the same command ends as one without the fault"""
    try:
        subprocess.run(["mount", "-o", "remount,size=64m", ground.out], check=True)
        assert ground.train().code == 0
        same_run(ground)
    finally:
        subprocess.run(["umount", ground.out], check=True)


@fault(
    GROUP,
    "a whole run on a file system of 64 KiB",
    says=r"error: .*No space left on device",
    code=1,
    survives=same_run_with_room,
)
def small_file_system(ground: Ground) -> Outcome:
    ground.out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", ground.out]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    return ground.train()


def generated_again(ground: Ground) -> None:
    """the cache: nothing half made stays, and the next use makes the data set"""
    folder = ground.folder / "cache"
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert not list(folder.rglob(".train.*"))


@fault(
    GROUP,
    "no room for the embedded data set",
    says=rf"error: .*{WAY_OUT}",
    code=1,
    survives=generated_again,
)
def embedded_data(ground: Ground) -> Outcome:
    ground.patch.setenv("VIDSEG_CACHE", str(ground.folder / "cache"))
    choke(ground.patch, synthetic, "_add_video", when=lambda *_, video_id, **__: video_id == 2)
    return ground.train("DATASETS.TRAIN", "('shapes_vis_easy_train',)", *FIVE_CLASSES)


def _report_case(ground: Ground) -> list[Path]:
    case = Path(__file__).parents[1] / "golden" / "ytvis_eval" / "tiny_by_hand"
    return [case / "gt.json", case / "results.json"]


@fault(
    GROUP,
    "no room for the metrics of tools/evaluate.py",
    says=r"error: cannot write .*metrics\.json: File too large",
    code=1,
    survives=kept_files,
)
def evaluate_report(ground: Ground) -> Outcome:
    from vidseg.evaluation import report

    output = ground.folder / "metrics.json"
    output.write_text(json.dumps({"segm/AP": 1.0}))
    ground.keep(output)
    choke(ground.patch, report, "write_metrics")
    gt, results = _report_case(ground)
    return ground.command("evaluate", "ytvis", "--gt", gt, "--results", results, "--output", output)


@fault(
    GROUP,
    "no room for the results of tools/demo.py",
    says=rf"error: .*shown/a/results\.json: {WAY_OUT}",
    code=1,
    survives=kept_files,
)
def demo_results(ground: Ground) -> Outcome:
    picture = sorted((ground.folder / "data").rglob("*.png"))[0].rename(ground.folder / "a.png")
    stored = ground.folder / "shown" / "a" / "results.json"
    stored.parent.mkdir(parents=True)
    stored.write_text("[]")
    ground.keep(picture, stored)
    choke(ground.patch, tool_module("demo"), "_write_results")
    return ground.show(picture)
