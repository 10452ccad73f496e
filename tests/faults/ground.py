"""Where faults are planted: a small run, the commands on it, and what may survive.

A fault is a function that does the damage and gives the command at it a try; ``fault`` puts it
into ``FAULTS`` with the sentence and the exit code that are due and with what must have survived.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.support import PLUGIN, make_dataset, write_config
from vidseg.checkpoint.files import read_checkpoint
from vidseg.config import load_config
from vidseg.engine.trainer import Trainer
from vidseg.errors import run_command
from vidseg.modeling import build_model

TOOLS = Path(__file__).parents[2] / "tools"
SEGMENTER = TOOLS.parent / "projects" / "dvis_daq" / "segmenter.yaml"
SMALL = (
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "1", "MODEL.MASK_FORMER.DEC_LAYERS", "2"),
    *("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "48"),
)
STOP = 5  # iteration at which a run of 8 is stopped; checkpoints are due every 3


@dataclass(frozen=True)
class Outcome:
    """What a command answered: exit code and everything it printed."""

    code: int
    text: str


Survivor = Callable[["Ground"], None]
"""Checks what must have survived; the first line of its docstring says what that is."""


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        group: heading that it stands under.
        name: what is planted.
        plant: does it and gives a command a try.
        says: regular expression that the printed text must match.
        code: exit code.
        survivor: see there.
    """

    group: str
    name: str
    plant: Callable[[Ground], Outcome]
    says: str
    code: int
    survivor: Survivor


FAULTS: list[Fault] = []


def fault(
    group: str, name: str, *, says: str, code: int, survives: Survivor
) -> Callable[[Callable[[Ground], Outcome]], Callable[[Ground], Outcome]]:
    """Puts a function into the table."""

    def enter(plant: Callable[[Ground], Outcome]) -> Callable[[Ground], Outcome]:
        FAULTS.append(Fault(group, name, plant, says, code, survives))
        return plant

    return enter


@dataclass
class Ground:
    """A folder with a data set, a config and a run, and the commands on them.

    Attributes:
        folder: for everything.
        patch: put back after the fault.
        capsys: what is printed.
        caplog: what is logged.
        undisturbed: run directory of the same training without any fault.
        repair: undoes the damage, where a command can only go on after that.
        words: overrides of every training.
        kept: files that must not change, with their content.
    """

    folder: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture
    undisturbed: Path
    repair: Callable[[], object] = lambda: None
    words: tuple[str, ...] = ()
    kept: dict[Path, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dataset = make_dataset(self.folder / "data")
        self.config = write_config(self.folder, self.dataset)
        self.out = self.folder / "out"

    def train(self, *words: object) -> Outcome:
        """Runs tools/train_net.py in this process."""
        arguments = ["--config-file", self.config, "--plugin", PLUGIN, *words, *self.words]
        return self.command("train_net", *arguments, "OUTPUT_DIR", self.out)

    def show(
        self, *inputs: Path, weights: Path | None = None, words: tuple[str, ...] = ()
    ) -> Outcome:
        """Runs tools/demo.py in this process, with a small segmenter that has learnt nothing."""
        where = ["--config-file", SEGMENTER, "--output", self.folder / "shown", *SMALL]
        if weights is None:
            weights = self.folder / "random.pth"
            model = build_model(load_config(SEGMENTER, list(SMALL)))
            torch.save({"model": model.state_dict()}, weights)
        return self.command("demo", *where, "--weights", weights, "--input", *inputs, *words)

    def command(self, tool: str, *arguments: object) -> Outcome:
        """Runs a tool in this process, from the command line to the exit code."""
        return self.call(tool_module(tool).main, tool, *arguments)

    def call(self, main: Callable[[list[str]], int], tool: str, *arguments: object) -> Outcome:
        """Runs the ``main`` of any command line in the same way."""
        self.capsys.readouterr()
        self.caplog.clear()
        with self.patch.context() as patch:
            patch.setattr(sys, "argv", [tool, *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                run_command(main)
        printed = self.capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out + printed.err + self.caplog.text)

    def stopped(self, number: int = signal.SIGTERM) -> Outcome:
        """Trains until a signal comes at iteration ``STOP``, so that checkpoints 3 and 5 exist."""
        with self.patch.context() as patch:
            at_iteration(patch, STOP, lambda: os.kill(os.getpid(), number))
            return self.train()

    def finished(self) -> None:
        """Trains to the end."""
        assert self.train().code == 0

    def killed(self, plan: Callable[[pytest.MonkeyPatch], object]) -> None:
        """Trains in a process of its own, which a trap that ``plan`` sets must kill."""
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                plan(self.patch)
                self.train()
            os._exit(99)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL

    def keep(self, *paths: Path) -> None:
        """Notes files whose content must not change."""
        self.kept |= {path: path.read_bytes() for path in paths}

    def damage(self, path: Path, content: bytes) -> None:
        """Replaces the content of a file; ``repair`` puts it back."""
        before = path.read_bytes()
        self.repair = lambda: path.write_bytes(before)
        path.write_bytes(content)

    def checkpoint(self, iteration: int) -> Path:
        return self.out / f"checkpoint_{iteration:07d}.pth"


@functools.cache
def tool_module(name: str) -> Any:
    """Imports a command line by its file."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_iteration(patch: pytest.MonkeyPatch, iteration: int, act: Callable[[], object]) -> None:
    """Does something when a training has made so many steps."""
    step = Trainer._step

    def stepping(self: Trainer, samples: list[dict[str, Any]]) -> None:
        step(self, samples)
        if self.iteration + 1 == iteration:
            act()

    patch.setattr(Trainer, "_step", stepping)


def before_call(
    patch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[..., object]
) -> None:
    """Does something with the arguments of a function before it is called."""
    original = getattr(owner, name)

    def called(*arguments: Any, **options: Any) -> Any:
        act(*arguments)
        return original(*arguments, **options)

    patch.setattr(owner, name, called)


def choke(
    patch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    *,
    when: Callable[..., bool] = lambda *_, **__: True,
    times: int = 1,
) -> None:
    """Lets the system refuse every byte that is written during some calls of a function."""
    original, left = getattr(owner, name), [times]

    def choked(*arguments: Any, **options: Any) -> Any:
        if not left[0] or not when(*arguments, **options):
            return original(*arguments, **options)
        left[0] -= 1
        with no_room():
            return original(*arguments, **options)

    patch.setattr(owner, name, choked)


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Forbids this process to make any file longer than a byte, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def cut(path: Path, share: float = 0.5) -> bytes:
    content = path.read_bytes()
    return content[: int(len(content) * share)]


def flip(path: Path) -> bytes:
    """Gives the content of a checkpoint with one bit of one weight flipped."""
    content = bytearray(path.read_bytes())
    weight = read_checkpoint(path)["model"]["backbone.weight"].numpy().tobytes()
    content[content.index(weight) + 1] ^= 16
    return bytes(content)


class Trap:
    """A pickle that makes a file where it is loaded with its code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


# What may survive. The first lines stand in the table.


def same_run(ground: Ground) -> None:
    """all loss lines and the weights, equal to the bit to those of a run without the fault"""
    assert _losses(ground.out) == _losses(ground.undisturbed)
    whole, own = (_weights(folder) for folder in (ground.undisturbed, ground.out))
    assert whole.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in whole.items())
    assert not list(ground.out.rglob(".*.tmp"))


def resumes(ground: Ground) -> None:
    """the run: once the cause is gone, the same command ends as one without the fault"""
    ground.repair()
    again = ground.train()
    assert again.code == 0, again.text
    same_run(ground)
    kept_files(ground)


def resumes_on_request(ground: Ground) -> None:
    """the run: with --resume it ends as one without the fault"""
    assert ground.train("--resume").code == 0
    same_run(ground)


def kept_files(ground: Ground) -> None:
    """all files, unchanged"""
    for path, content in ground.kept.items():
        assert path.read_bytes() == content, path


def nothing_begun(ground: Ground) -> None:
    """everything: no file was written and no step made"""
    assert not ground.out.exists()
    kept_files(ground)


def _losses(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    timed = re.compile("time|data_time|max_mem")
    return [
        {key: value for key, value in entry.items() if not timed.fullmatch(key)}
        for entry in entries
        if "total_loss" in entry
    ]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = read_checkpoint(folder / "model_final.pth")["model"]
    return weights
