"""Files are read with a sentence for every mistake, and never left half written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from vidseg.errors import DataError
from vidseg.files import (
    Draft,
    draft_suffix,
    read_json,
    remove_stale_drafts,
    write_atomically,
    write_folder,
)


def test_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_only_durable_files_wait_for_the_disk(tmp_path: Path, monkeypatch) -> None:
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    write_atomically(tmp_path / "a", lambda file: file.write(b"new"), durable=False)
    assert (tmp_path / "a").read_text() == "new"
    assert not synced
    write_atomically(tmp_path / "a", lambda file: file.write(b"newer"))
    assert (tmp_path / "a").read_text() == "newer"
    assert synced


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half of the new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_drafts_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    ).stdout.strip()
    stale = [tmp_path / f".a.{gone}.tmp", tmp_path / "below" / f".b.x.{gone}.tmp"]
    kept = [tmp_path / f".a{draft_suffix()}", tmp_path / "b.tmp", tmp_path / ".c.tmp"]
    for path in (stale[0] / "inside", stale[1], *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert remove_stale_drafts(tmp_path) == stale
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)


def test_draft_without_content_can_be_discarded(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "absent" / "file")
    draft.discard()
    with pytest.raises(FileNotFoundError):
        draft.publish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^score file .*a\.json does not exist$"),
        (b'{"a":\n 1,, }', r"a\.json is not valid json: .* in line 2, column"),
        (b"\xff\xfe\x00", r"a\.json is not valid json: it is not text"),
        (b"9" * 5000, r"a\.json is not valid json: "),
    ],
)
def test_what_is_wrong_with_json_is_told_in_one_sentence(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_json(path, what="score file")


def test_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file .* cannot be read: Is a directory"):
        read_json(tmp_path)


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    stale = tmp_path / "sets" / ".set.x.999999999.tmp"
    stale.mkdir(parents=True)

    def fail(draft: Path) -> None:
        (draft / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "sets" / "set", fail)
    assert not list((tmp_path / "sets").iterdir())
    write_folder(tmp_path / "sets" / "set", lambda draft: (draft / "a").write_text("first"))
    write_folder(tmp_path / "sets" / "set", fail)  # what is there stays, and nothing is made
    assert (tmp_path / "sets" / "set" / "a").read_text() == "first"


def test_simultaneous_run_may_be_quicker(tmp_path: Path) -> None:
    def write(draft: Path) -> None:
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a").write_text("theirs")
        (draft / "a").write_text("ours")

    assert not write_folder(tmp_path / "set", write)
    assert [path.read_text() for path in tmp_path.rglob("a")] == ["theirs"]


def test_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert write_folder(tmp_path / "set", lambda draft: (draft / "a").touch())
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a"]


def test_drafts_of_other_folders_stay(tmp_path: Path) -> None:
    other = tmp_path / ".set2.x.999999999.tmp"
    other.mkdir()
    write_folder(tmp_path / "set", lambda draft: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "set"]
