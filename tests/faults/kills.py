"""Signals at the worst moments, and processes of a run that are gone."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.ground import (
    Ground,
    Outcome,
    at_iteration,
    before_call,
    fault,
    kill_self,
    nothing_begun,
    resumes,
    same_run,
)
from vidseg import files
from vidseg.checkpoint import Checkpointer, checkpointer
from vidseg.data import synthetic
from vidseg.engine.hooks import CheckpointHook
from vidseg.engine.run_dir import RunDirectory
from vidseg.evaluation.ytvis_evaluator import YTVISEvaluator

SIGNALS = "Signals"
KILLS = "SIGKILL"
PEERS = "Other processes of a run"
STOPPED = r"received: stopping in good order.*stopped at iteration 5 of 8; the same command goes on"


def _signal(name: str, number: int) -> None:
    @fault(SIGNALS, name, says=STOPPED, code=128 + number, survives=resumes)
    def plant(ground: Ground) -> Outcome:
        return ground.stopped(number)


_signal("SIGTERM in training", signal.SIGTERM)
_signal("SIGINT in training", signal.SIGINT)


@fault(
    SIGNALS,
    "SIGTERM in an evaluation",
    says=r"SIGTERM received.*evaluation on .* was stopped; the same command",
    code=128 + signal.SIGTERM,
    survives=resumes,
)
def terminated_evaluation(ground: Ground) -> Outcome:
    stop = lambda *_: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    before_call(ground.patch, YTVISEvaluator, "process", stop)
    return ground.train()


def _killed(name: str, plan: Callable[[pytest.MonkeyPatch], object], says: str) -> None:
    """Kills a training where the plan says; the same command is then given again."""

    @fault(KILLS, f"SIGKILL {name}", says=says, code=0, survives=same_run)
    def plant(ground: Ground) -> Outcome:
        ground.killed(plan)
        return ground.train()


def _while_syncing(part: str) -> Callable[[pytest.MonkeyPatch], None]:
    """The content is written, the name is not given yet."""

    def plan(patch: pytest.MonkeyPatch) -> None:
        def look(self: files.Draft) -> None:
            if part in self.final.name:
                kill_self()

        before_call(patch, files.Draft, "publish", look)

    return plan


def _before(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: before_call(patch, owner, name, lambda *_: kill_self())


FROM_3 = r"resuming from .*checkpoint_0000003\.pth: iteration 3 to 8"
FROM_6 = r"resuming from .*checkpoint_0000006\.pth: iteration 6 to 8"
FROM_8 = r"resuming from .*checkpoint_0000008\.pth: iteration 8 to 8"
_killed("at the first step", lambda p: at_iteration(p, 1, kill_self), "training from iteration 0")
_killed("between two checkpoints", lambda patch: at_iteration(patch, 5, kill_self), FROM_3)
_killed("while a checkpoint is written", _while_syncing("checkpoint_0000006.pth"), FROM_3)
_killed(
    "between a checkpoint and last_checkpoint",
    lambda patch: before_call(
        patch,
        checkpointer,
        "write_atomically",
        lambda path, _: kill_self() if path.name == "last_checkpoint" else None,
    ),
    FROM_3,
)
_killed("before old checkpoints are dropped", _before(Checkpointer, "_drop_old"), FROM_3)
_killed("at the end of training", _before(CheckpointHook, "after_train"), FROM_6)
_killed("while model_final.pth is written", _while_syncing("model_final.pth"), FROM_8)
_killed("in the evaluation", _before(YTVISEvaluator, "process"), "nothing to do")
_killed("while results.json is written", _while_syncing("results.json"), "nothing to do")
_killed("while the metrics are stored", _before(RunDirectory, "write_metrics"), "nothing to do")


def no_rest(ground: Ground) -> None:
    """the cache: what was half made is gone after the next generation"""
    folder = ground.folder / "cache"
    assert [path.name for path in folder.iterdir()] == ["train"]
    assert (folder / "train" / "instances.json").is_file()


@fault(
    KILLS,
    "SIGKILL while the embedded data set is generated",
    says="generated",
    code=0,
    survives=no_rest,
)
def killed_generation(ground: Ground) -> Outcome:
    folder = ground.folder / "cache" / "train"

    def generate() -> None:
        synthetic.generate_split(folder, "easy", seed=1, num_videos=2, length=1)

    pid = os.fork()
    if pid == 0:
        before_call(ground.patch, synthetic.json, "dumps", lambda *_: kill_self())
        generate()
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert list(folder.parent.glob(".train.*"))
    generate()
    return Outcome(0, "generated")


@fault(
    PEERS,
    "the port of the run is taken",
    says=r"error: the processes of the run cannot meet at 127\.0\.0\.1:\d+ .*choose another port",
    code=1,
    survives=nothing_begun,
)
def port_in_use(ground: Ground) -> Outcome:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **place}.items():
            ground.patch.setenv(name, value)
        return ground.train()
