"""Faults in what a run left: checkpoints, final weights, its config, its numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tests.faults.ground import (
    Ground,
    Outcome,
    Survivor,
    Trap,
    cut,
    fault,
    flip,
    kept_files,
    resumes,
    resumes_on_request,
    same_run,
)
from vidseg.checkpoint.files import read_checkpoint
from vidseg.engine.run_dir import locked

GROUP = "Checkpoints and run directories"
TAKEN = r"going on from checkpoint_0000003\.pth, the newest sound one"


def _last_becomes(
    name: str,
    content: Callable[[Path], bytes],
    says: str,
    *,
    code: int = 0,
    survives: Survivor = same_run,
) -> None:
    @fault(GROUP, f"last checkpoint: {name}", says=says, code=code, survives=survives)
    def plant(ground: Ground) -> Outcome:
        ground.stopped()
        last = ground.checkpoint(5)
        last.write_bytes(content(last))
        ground.keep(last)
        ground.repair = last.unlink
        outcome = ground.train()
        assert not (ground.folder / "executed").exists()
        return outcome


def _saved(path: Path, content: object) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


def _with_objects(path: Path) -> bytes:
    return _saved(path, {"iteration": 5, "model": Trap(path.parents[1] / "executed")})


def _of_another_model(path: Path) -> bytes:
    content = read_checkpoint(path)
    content["model"]["head.weight"] = torch.zeros(3, 7)
    return _saved(path, content)


def _without_optimizer(path: Path) -> bytes:
    content = read_checkpoint(path)
    del content["precision"]
    return _saved(path, content)


DAMAGED = rf"checkpoint_0000005\.pth is damaged.*{TAKEN}"
_last_becomes("cut in half", cut, DAMAGED)
_last_becomes("empty", lambda path: b"", DAMAGED)
_last_becomes("text", lambda path: b"not found " * 99, DAMAGED)
_last_becomes("one bit of a weight flipped", flip, rf"is damaged: the checksum of .*{TAKEN}")
_last_becomes("holds code", _with_objects, rf"holds Python objects.*not loaded.*{TAKEN}")
_last_becomes("no checkpoint", lambda p: _saved(p, [1]), rf"is no checkpoint of a run; {TAKEN}")
_last_becomes(
    "of another model",
    _of_another_model,
    r"checkpoint_0000005\.pth: the checkpoint belongs to another model: .*head\.weight.*remove",
    code=1,
    survives=kept_files,
)
_last_becomes(
    "lacks a part",
    _without_optimizer,
    r"checkpoint_0000005\.pth: the checkpoint is not one of this trainer: .*precision.*remove",
    code=1,
    survives=kept_files,
)


@fault(
    GROUP,
    "all checkpoints damaged",
    says=r"all 2 checkpoints in .* are damaged; remove them to start again",
    code=1,
    survives=resumes,
)
def all_checkpoints(ground: Ground) -> Outcome:
    ground.stopped()
    paths = [ground.checkpoint(3), ground.checkpoint(5)]
    for path in paths:
        path.write_bytes(cut(path))
    ground.repair = lambda: [path.unlink() for path in paths]
    return ground.train()


def _pointer_becomes(name: str, content: bytes) -> None:
    @fault(
        GROUP,
        f"last_checkpoint {name}",
        says=r"resuming from .*checkpoint_0000005\.pth: iteration 5",
        code=0,
        survives=same_run,
    )
    def plant(ground: Ground) -> Outcome:
        ground.stopped()
        torch.save({"iteration": 5, "model": {}}, ground.folder / "other.pth")
        (ground.out / "last_checkpoint").write_bytes(content)
        return ground.train()


_pointer_becomes("names a missing file", b"checkpoint_0000099.pth")
_pointer_becomes("holds garbage", b"\xff\x00\xfe" * 99)
_pointer_becomes("leads out of the folder", b"../other.pth")


def _final_becomes(name: str, content: Callable[[Path], bytes], says: str) -> None:
    @fault(GROUP, f"model_final.pth: {name}", says=says, code=0, survives=same_run)
    def plant(ground: Ground) -> Outcome:
        ground.finished()
        final = ground.out / "model_final.pth"
        final.write_bytes(content(final))
        return ground.train()


_final_becomes("cut in half", cut, r"model_final\.pth is not used: .* is damaged")
_final_becomes("one bit flipped", flip, r"model_final\.pth is not used: .* the checksum of")


def _config_becomes(name: str, content: Callable[[Path], bytes]) -> None:
    @fault(
        GROUP,
        f"config.yaml of the run: {name}",
        says=r"holds a run of another config \(config\.yaml is damaged\); use --resume",
        code=2,
        survives=resumes_on_request,
    )
    def plant(ground: Ground) -> Outcome:
        ground.stopped()
        stored = ground.out / "config.yaml"
        stored.write_bytes(content(stored))
        return ground.train()


_config_becomes("empty", lambda path: b"")
_config_becomes("a list", lambda path: b"- 1\n- 2\n")
_config_becomes("no yaml", lambda path: b"MODEL: [1, {\n\x00")


def _metrics_become(name: str, tail: bytes) -> None:
    @fault(GROUP, f"metrics.jsonl {name}", says="resuming from", code=0, survives=same_run)
    def plant(ground: Ground) -> Outcome:
        ground.stopped()
        with open(ground.out / "metrics.jsonl", "ab") as file:
            file.write(tail)
        return ground.train()


_metrics_become("ends with half a line", b'{"iteration": 5, "total_lo')
_metrics_become("ends with zero bytes", bytes(512))


@fault(
    GROUP,
    "final_metrics.json cut in half",
    says=r"nothing to do.*instances\.json: 4 videos in",
    code=0,
    survives=same_run,
)
def final_metrics(ground: Ground) -> Outcome:
    ground.finished()
    stored = ground.out / "final_metrics.json"
    stored.write_bytes(cut(stored))
    return ground.train()


@fault(
    GROUP,
    "half a checkpoint of a killed process",
    says=r"resuming from .*checkpoint_0000005\.pth",
    code=0,
    survives=same_run,
)
def stale_draft(ground: Ground) -> Outcome:
    ground.stopped()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    draft = ground.out / f".checkpoint_0000006.pth.{gone.pid}.tmp"
    draft.write_bytes(cut(ground.checkpoint(5)))
    return ground.train()


@fault(
    GROUP,
    "a second run in the same folder",
    says=r"process \d+ is already running in .*choose another OUTPUT_DIR",
    code=2,
    survives=resumes,
)
def second_run(ground: Ground) -> Outcome:
    ground.stopped()
    ready, done = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        with locked(ground.out):
            os.write(ready[1], b"!")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)

    def end() -> None:
        os.write(done[1], b"!")
        assert os.waitpid(holder, 0)[1] == 0

    ground.repair = end
    ground.keep(ground.checkpoint(5))
    outcome = ground.train()
    assert f"process {holder} " in outcome.text
    return outcome


@fault(
    GROUP,
    "another run in the folder",
    says=r"holds a run of another config \(SOLVER\.BASE_LR: 0\.01 -> 0\.5\); use --resume",
    code=2,
    survives=resumes,
)
def other_run(ground: Ground) -> Outcome:
    ground.stopped()
    ground.keep(ground.checkpoint(5))
    return ground.train("SOLVER.BASE_LR", 0.5)


@fault(
    GROUP,
    "OUTPUT_DIR is a file",
    says=r"OUTPUT_DIR .*out cannot be made \(File exists\); choose another folder",
    code=2,
    survives=kept_files,
)
def folder_is_file(ground: Ground) -> Outcome:
    ground.out.write_text("mine")
    ground.keep(ground.out)
    return ground.train()


@fault(
    GROUP,
    "OUTPUT_DIR may not be written to",
    says=r"OUTPUT_DIR .*out cannot be written to \(Permission denied\); choose another folder",
    code=2,
    survives=resumes,
)
def folder_is_protected(ground: Ground) -> Outcome:
    import builtins

    ground.stopped()
    opened = builtins.open

    def refuse(file: object, mode: str = "r", *arguments: object, **options: object) -> object:
        # Permissions do not stop the administrator, as whom tests may run.
        if str(file).startswith(str(ground.out)) and mode[0] in "wax":
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, mode, *arguments, **options)  # type: ignore[call-overload]

    with ground.patch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        return ground.train()
