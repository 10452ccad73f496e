from __future__ import annotations

import json
import resource
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vidseg.errors import UserError

ROOT = Path(__file__).parents[2]


def check(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, str(ROOT / "tools" / "check_data.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    documents = []
    for number in range(9):
        np.save(tmp_path / f"{number}.npy", np.arange(8.0).reshape(4, 2) + number)
        documents.append({"id": number, "path": f"{number}.npy"})
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"documents": documents}))
    return path


def test_sound_data(index: Path) -> None:
    done = check(index)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{index}: 9 documents, 36 frames\n0 errors, 0 warnings, 0 notes\n"


def test_defects_are_shown_and_written(index: Path, tmp_path: Path) -> None:
    for number in range(7):
        np.save(index.parent / f"{number}.npy", np.full((4, 2), float(number)))
    np.save(index.parent / "8.npy", np.full((4, 2), np.nan))
    done = check(index, "--json", tmp_path / "found.json", "--show", 2)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[1].startswith("error: not-finite (1): ")
    assert lines[3].startswith("warning: constant-document (7): ")
    assert lines[6] == "    and 5 more; --show prints them"
    assert lines[-1] == "1 error, 7 warnings, 0 notes"
    (written,) = json.loads((tmp_path / "found.json").read_text())
    assert written["looked_at"] == {"documents": 9, "frames": 36}
    assert [one["kind"] for one in written["findings"]] == ["not-finite"] + [
        "constant-document"
    ] * 7
    printed = check(index, "--json", "-")
    assert json.loads(printed.stdout) == [written]
    assert printed.returncode == 1
    nowhere = check(index, "--json", tmp_path / "no" / "a.json")
    assert nowhere.returncode == 2
    assert "there is no such folder" in nowhere.stderr


def test_notes_are_no_failure(index: Path) -> None:
    done = check(index, "--quick")
    assert done.returncode == 0
    assert "note: not-looked-into" in done.stdout


def test_layout_of_public_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = check("--layout", VIDSEG_DATASETS=str(tmp_path))
    assert nothing.returncode == 1
    text = "ovis/annotations/annotations_train.json"
    assert f"missing  ovis_train: there is no file {text}\n      {text}\n" in nothing.stdout
    assert "missing  vipseg_val: " in nothing.stdout
    main = runpy.run_path(str(ROOT / "tools" / "check_data.py"))["main"]
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    (tmp_path / "ovis" / "annotations").mkdir(parents=True)
    (tmp_path / text).write_text("{}")
    assert main(["--layout", "ovis_train"]) == 1
    assert "\npartly   ovis_train: there is no folder ovis/train\n" in capsys.readouterr().out
    (tmp_path / "ovis" / "train" / "a").mkdir(parents=True)
    (tmp_path / "ovis" / "train" / "a" / "1.jpg").touch()
    assert main(["--layout"]) == 0
    assert main(["--layout", "ovis_train"]) == 0
    assert main(["--layout", "ovis"]) == 1
    assert "there    ovis_train\nmissing  ovis_val: " in capsys.readouterr().out
    with pytest.raises(UserError, match="ovis_trian: no public data set is called so; known: ovis"):
        main(["--layout", "ovis_trian"])


def test_mistakes_have_one_sentence() -> None:
    done = check("nowhere/instances.json")
    assert done.returncode == 1
    assert done.stderr == "error: DATASETS: no such file: nowhere/instances.json\n"
    assert check().returncode == 2


def test_kinds_are_explained() -> None:
    done = check("--kinds")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) >= 20
    assert done.stdout.startswith("error   unreadable")


def test_help_is_quick() -> None:
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = check("--help")
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime < 1
    assert "python tools/check_data.py my_set/instances.json" in done.stdout


def test_looking_at_a_json_file_does_not_import_torch() -> None:
    program = "import sys, vidseg.data.checks; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "False\n"
