"""Checkpoint files: pruning, the newest sound one, and writing that leaves no ruins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vidseg.checkpoint import Checkpointer
from vidseg.errors import DataError


def save(checkpointer: Checkpointer, *iterations: int) -> None:
    for iteration in iterations:
        content = {"iteration": iteration, "model": {"w": torch.full((2,), float(iteration))}}
        checkpointer.save_periodic(iteration, content)


def test_keeps_the_newest(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "run", num_kept=2)
    save(checkpointer, 5, 10, 15)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["checkpoint_0000010.pth", "checkpoint_0000015.pth", "last_checkpoint"]
    newest = checkpointer.load_newest()
    assert newest is not None
    assert newest[1]["iteration"] == 15


def test_keeps_all_when_asked(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, num_kept=0)
    save(checkpointer, 1, 2, 3, 4)
    assert len(checkpointer.periodic()) == 4


def test_empty_directory_has_none(tmp_path: Path) -> None:
    assert Checkpointer(tmp_path / "absent").load_newest() is None
    assert not Checkpointer(tmp_path / "absent").has_checkpoint()


@pytest.mark.parametrize("ruin", [b"", b"rubbish", None])
def test_damaged_newest_falls_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ruin: bytes | None
) -> None:
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, 5, 10)
    newest = tmp_path / "checkpoint_0000010.pth"
    newest.write_bytes(newest.read_bytes()[:300] if ruin is None else ruin)
    found = checkpointer.load_newest()
    assert found is not None
    assert found[1]["iteration"] == 5
    assert "checkpoint_0000010.pth" in caplog.text


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, 5)
    (tmp_path / "checkpoint_0000005.pth").write_bytes(b"x")
    with pytest.raises(DataError, match="all 1 checkpoints"):
        checkpointer.load_newest()


@pytest.mark.parametrize("pointer", [b"checkpoint_0000099.pth", b"\xff\xfe", b"../other.pth", b""])
def test_odd_pointer_is_ignored(tmp_path: Path, pointer: bytes) -> None:
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, 5)
    (tmp_path / "last_checkpoint").write_bytes(pointer)
    found = checkpointer.load_newest()
    assert found is not None
    assert found[1]["iteration"] == 5


def test_set_back_run_removes_later_files(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, num_kept=3)
    save(checkpointer, 5, 10, 15)
    save(checkpointer, 7)
    assert [path.name[11:18] for path in checkpointer.periodic()] == ["0000007", "0000005"]
