from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def split(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "split.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )


@pytest.fixture
def hold_back(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("split").hold_back


def _write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def _parts(path: Path) -> list[dict[str, Any]]:
    names = (f"{path.stem}_split_{part}.json" for part in ("train", "val"))
    return [json.loads(path.with_name(name).read_text()) for name in names]


def test_by_videos(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "fish"}, {"id": 2, "name": "bird"}, {"id": 3, "name": "cow"}]
    annotations = [{"id": k, "video_id": k // 2, "category_id": k % 2 + 1} for k in range(20)]
    annotations.append({"id": 20, "video_id": 4, "category_id": 3})
    content = {"videos": [{"id": k} for k in range(10)], "categories": categories}
    path = _write(tmp_path / "train.json", {**content, "annotations": annotations})
    done = split(path, "--val-share", "0.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "not in validation: cow"
    parts = _parts(path)
    assert [len(part["videos"]) for part in parts] == [7, 3]
    for part in parts:
        assert {a["video_id"] for a in part["annotations"]} == {v["id"] for v in part["videos"]}
        assert part["categories"] == categories
        assert part["image_root"] == "."
    assert sum(len(part["annotations"]) for part in parts) == 21
    again = split(path, "--val-share", "0.3")
    assert (again.returncode, again.stdout) == (0, done.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--val-share", "0"], "--val-share 0.0 is no share"),
        (["--val-share", "nan"], "--val-share nan is no share"),
        (["--val-share", "0.2"], "leaves one part empty"),
        (["--val-share", "0.5", "--together", "("], "'(' is no regular expression"),
        (["--val-share", "0.5", "--together", "x"], "'x' finds nothing in a/0.jpg"),
        (["--val-share", "0.5", "--together", "."], "of the 2 videos in "),
    ],
)
def test_mistakes_have_one_sentence(tmp_path: Path, words: list[str], message: str) -> None:
    videos = [{"id": k, "file_names": [f"a/{k}.jpg"]} for k in range(2)]
    path = _write(tmp_path / "train.json", {"videos": videos, "categories": []})
    failed = split(path, *words)
    assert failed.returncode == 2
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_another_split_is_not_overwritten(tmp_path: Path) -> None:
    path = _write(tmp_path / "train.json", {"videos": [{"id": k} for k in range(9)]})
    assert split(path, "--val-share", "0.3").returncode == 0
    before = _parts(path)
    failed = split(path, "--val-share", "0.5")
    assert failed.returncode == 2
    assert "train_split_train.json is there already, of another split" in failed.stderr
    assert _parts(path) == before


def test_videos_of_one_source_stay_together(tmp_path: Path) -> None:
    """Frames in common say so by themselves, folders of recordings if they are asked for."""
    files = [[f"tape{k // 4}/{k}_{t}.jpg" for t in range(3)] for k in range(24)]
    files[8].append(files[17][0])
    videos = [{"id": k, "file_names": names} for k, names in enumerate(files)]
    path = _write(tmp_path / "train.json", {"videos": videos, "categories": []})
    for seed in range(3):
        assert split(path, "--val-share", "0.5", "--seed", seed).returncode == 0
        held = {video["id"] for video in _parts(path)[1]["videos"]}
        assert len(held) == 12
        assert (8 in held) == (17 in held)
        for part in ("train", "val"):
            path.with_name(f"train_split_{part}.json").unlink()
    assert split(path, "--val-share", "0.4", "--together", r"(tape\d)/").returncode == 0
    held = {video["id"] for video in _parts(path)[1]["videos"]}
    assert len(held) == 8
    assert {8, 17} <= held or held.isdisjoint({8, 17})
    assert all((k in held) == (k // 4 * 4 in held) for k in range(24))


def test_a_published_set_keeps_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "ovis" / "annotations" / "annotations_train.json"
    _write(path, {"videos": [{"id": 1}, {"id": 2}], "annotations": [], "categories": []})
    done = split(path, "--val-share", "0.5", VIDSEG_DATASETS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert _parts(path)[1]["image_root"] == "../train"


def test_documents(tmp_path: Path) -> None:
    documents = [{"id": f"d{k}", "path": f"{k}.npy", "topic": "ab"[k % 2]} for k in range(20)]
    path = _write(tmp_path / "index.json", {"documents": documents, "topics": ["a", "b"]})
    assert split(path, "--val-share", "0.2").returncode == 0
    parts = _parts(path)
    assert [Counter(d["topic"] for d in part["documents"]) for part in parts] == [
        {"a": 8, "b": 8},
        {"a": 2, "b": 2},
    ]
    assert "image_root" not in parts[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"categories": []}, "has no list of videos, images, documents"),
        ({"videos": [{"id": 1}, {"id": 1}]}, "two videos have the id 1"),
        ({"images": [{}]}, "lacks the key id"),
        (
            {"videos": [{"id": 1}], "annotations": [{"id": 1, "video_id": 2, "category_id": 1}]},
            "video_id 2, which is no video",
        ),
    ],
)
def test_broken_files(tmp_path: Path, content: Any, message: str) -> None:
    done = split(_write(tmp_path / "a.json", content))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_classes_keep_their_shares(hold_back: Any) -> None:
    rng = np.random.default_rng(0)
    chances = np.geomspace(0.5, 0.02, 12)
    labels: dict[Hashable, set[Hashable]] = {
        key: set(np.flatnonzero(rng.random(12) < chances).tolist()) for key in range(400)
    }
    totals = Counter(label for found in labels.values() for label in found)
    worst = {"stratified": 0.0, "drawn": 0.0}
    for seed in range(5):
        held = hold_back(labels, 80, seed)
        assert len(held) == 80
        drawn = set(np.random.default_rng(seed).permutation(400)[:80].tolist())
        for name, chosen in (("stratified", held), ("drawn", drawn)):
            counts = Counter(label for key in chosen for label in labels[key])
            off = max(abs(counts[k] / total - 0.2) for k, total in totals.items())
            worst[name] = max(worst[name], off)
    # Nearest to a fifth of eight videos are one or two.
    assert worst["stratified"] < 0.1 < worst["drawn"]


def test_the_seed_decides(hold_back: Any) -> None:
    labels: dict[Hashable, set[Hashable]] = {key: {key % 3} for key in range(60)}
    first = hold_back(labels, 12, 0)
    assert first == hold_back(labels, 12, 0)
    assert first == hold_back(dict(reversed(labels.items())), 12, 0)
    assert first != hold_back(labels, 12, 1)


def test_without_labels_all_are_drawn_alike(hold_back: Any) -> None:
    labels: dict[Hashable, set[Hashable]] = {key: set() for key in range(30)}
    counts = Counter(key for seed in range(300) for key in hold_back(labels, 10, seed))
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


def test_a_class_of_one_video_is_trained_on(hold_back: Any) -> None:
    labels: dict[Hashable, set[Hashable]] = {key: {0} for key in range(10)} | {10: {0, 1}}
    assert not any(10 in hold_back(labels, 3, seed) for seed in range(20))


def test_a_class_of_two_videos_is_in_both_parts(hold_back: Any) -> None:
    labels: dict[Hashable, set[Hashable]] = {key: {0} for key in range(10)}
    labels |= {10: {0, 1}, 11: {0, 1}}
    assert all(len({10, 11} & hold_back(labels, 3, seed)) == 1 for seed in range(20))
