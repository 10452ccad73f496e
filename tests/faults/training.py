"""Faults inside a training: loader processes, losses and gradients that are no numbers."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.faults.ground import (
    Ground,
    Outcome,
    at_iteration,
    before_call,
    fault,
    kill_self,
    resumes,
    same_run,
)
from vidseg.checkpoint.files import read_checkpoint
from vidseg.data import sample_loader
from vidseg.data.clip_mapper import ClipMapper
from vidseg.engine.trainer import Trainer

WORKERS = "Loader processes"
NUMBERS = "Losses and gradients"
RESTARTED = r"a data loader worker died or hung at iteration \d .*starting it again"


def _worker(name: str, act: Callable[[], object], says: str = RESTARTED) -> None:
    """Lets the loader process do something once, in the middle of its work."""

    @fault(WORKERS, name, says=says, code=0, survives=same_run)
    def plant(ground: Ground) -> Outcome:
        done, calls = ground.folder / "done", [0]

        def once(*_: Any) -> None:
            calls[0] += 1
            if calls[0] == 6 and not done.exists():
                done.touch()
                act()

        before_call(ground.patch, ClipMapper, "__call__", once)
        ground.patch.setattr(sample_loader, "_LOOK_SECONDS", 1)
        ground.patch.setattr(sample_loader, "_PATIENCE_SECONDS", 1.5)
        return ground.train("DATALOADER.NUM_WORKERS", 1)


_worker("a loader process is killed", kill_self)
_worker("a loader process exits", lambda: os._exit(3))
_worker("a loader process hangs", lambda: time.sleep(600))


@fault(
    WORKERS,
    "a loader process is killed while the model computes",
    says=RESTARTED,
    code=0,
    survives=same_run,
)
def killed_in_a_step(ground: Ground) -> Outcome:
    def kill() -> None:
        for child in multiprocessing.active_children():
            child.kill()
        time.sleep(0.2)  # its end is noticed here, if anything tells of it

    ground.patch.setattr(sample_loader, "_LOOK_SECONDS", 0.5)
    at_iteration(ground.patch, 3, kill)
    return ground.train("DATALOADER.NUM_WORKERS", 1)


@fault(
    WORKERS,
    "loader processes are killed again and again",
    says=r"error: data loader workers keep dying .* at iteration 0 .*lower DATALOADER\.NUM_WORKERS",
    code=1,
    survives=resumes,
)
def killed_for_ever(ground: Ground) -> Outcome:
    before_call(ground.patch, ClipMapper, "__call__", lambda *_: kill_self())
    ground.patch.setattr(sample_loader, "_LOOK_SECONDS", 0.1)
    return ground.train("DATALOADER.NUM_WORKERS", 1)


@fault(
    WORKERS,
    "a loader process runs out of memory for a sample",
    says=r"error: video \d of .*instances\.json cannot be mapped: MemoryError",
    code=1,
    survives=resumes,
)
def out_of_memory(ground: Ground) -> Outcome:
    def refuse(*_: Any) -> None:
        raise MemoryError("cannot allocate")

    before_call(ground.patch, ClipMapper, "__call__", refuse)
    return ground.train("DATALOADER.NUM_WORKERS", 1)


def _spoil(ground: Ground, is_bad: Callable[[int, int], bool], bad: Callable[[Any], Any]) -> None:
    """Adds something bad to the loss of chosen samples, by iteration and video."""
    train = Trainer.train

    def spoiled(self: Trainer) -> None:
        model = self.model
        losses = model.losses

        def with_fault(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            result = losses(samples)
            if any(is_bad(sample["iteration"], sample["video_id"]) for sample in samples):
                result["loss_toy"] = result["loss_toy"] + bad(model)
            return result

        model.losses = with_fault
        train(self)

    ground.patch.setattr(Trainer, "train", spoiled)


def goes_on_finite(ground: Ground) -> None:
    """the run: it ends with finite weights, and earlier steps are those of a run without it"""
    content = read_checkpoint(ground.out / "model_final.pth")
    assert content["iteration"] == 8
    assert all(bool(torch.isfinite(value).all()) for value in content["model"].values())
    last = read_checkpoint(ground.checkpoint(8))
    assert last["num_nan_steps"] == 0
    first = read_checkpoint(ground.checkpoint(3))
    same = read_checkpoint(ground.undisturbed / ground.checkpoint(3).name)
    assert all(torch.equal(value, same["model"][name]) for name, value in first["model"].items())


@fault(
    NUMBERS,
    "the loss of one sample is not a number",
    says=r"iteration 4: loss_toy not finite; the step is skipped\. Samples: video \d, .*0\.png",
    code=0,
    survives=goes_on_finite,
)
def one_loss(ground: Ground) -> Outcome:
    _spoil(ground, lambda iteration, _: iteration == 4, lambda model: math.nan)
    return ground.train()


@fault(
    NUMBERS,
    "an infinite gradient under a finite loss",
    says=r"iteration 4: the gradient is not finite; the step is skipped\. Samples: video \d",
    code=0,
    survives=goes_on_finite,
)
def one_gradient(ground: Ground) -> Outcome:
    def root_of_zero(model: Any) -> torch.Tensor:
        zero: torch.Tensor = model.head.weight.sum() * 0
        return zero.sqrt()

    _spoil(ground, lambda iteration, _: iteration == 4, root_of_zero)
    return ground.train()


@fault(
    NUMBERS,
    "losses stay infinite",
    says=r"error: 3 steps in a row were not finite \(SOLVER\.MAX_NAN_STEPS\) at iteration 5; lower",
    code=1,
    survives=resumes,
)
def for_ever(ground: Ground) -> Outcome:
    ground.words = ("SOLVER.MAX_NAN_STEPS", "3")
    _spoil(ground, lambda iteration, _: iteration >= 3, lambda model: math.inf)
    return ground.train()
