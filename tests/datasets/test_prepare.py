from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "datasets"


def _run(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, str(FOLDER / script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_split_by_videos(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    videos = [{"id": k} for k in range(10)]
    annotations = [{"id": k, "video_id": k // 2} for k in range(20)]
    _write(path, {"videos": videos, "annotations": annotations, "categories": [{"id": 1}]})
    done = _run("prepare_ytvis_split.py", str(path), "--val-share", "0.3")
    assert done.returncode == 0, done.stderr
    parts = [json.loads((tmp_path / f"train_split_{p}.json").read_text()) for p in ("train", "val")]
    assert [len(part["videos"]) for part in parts] == [7, 3]
    for part in parts:
        ids = {video["id"] for video in part["videos"]}
        assert {a["video_id"] for a in part["annotations"]} == ids
        assert part["categories"] == [{"id": 1}]
        assert part["image_root"] == "."
    failed = _run("prepare_ytvis_split.py", str(path), "--val-share", "0")
    assert failed.returncode == 2
    assert "leaves one part empty" in failed.stderr


def test_split_of_a_published_set_finds_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "ovis" / "annotations" / "annotations_train.json"
    _write(path, {"videos": [{"id": 1}, {"id": 2}], "annotations": [], "categories": []})
    done = _run(
        "prepare_ytvis_split.py", str(path), "--val-share", "0.5", VIDSEG_DATASETS=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    part = json.loads(path.with_name("annotations_train_split_val.json").read_text())
    assert part["image_root"] == "../train"


def test_coco_to_vis(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "person"}, {"id": 15, "name": "bench"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1},
            {"id": 2, "image_id": 2, "category_id": 15},
        ],
    }
    folder = tmp_path / "coco" / "annotations"
    _write(folder / "instances_val2017.json", content)
    done = _run("prepare_coco_to_vis.py", "ovis", "--splits", "val", VIDSEG_DATASETS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    reduced = json.loads((folder / "coco2ovis_val.json").read_text())
    assert reduced["images"] == [{"id": 1}]
    assert [category["id"] for category in reduced["categories"]] == [1]
    missing = _run("prepare_coco_to_vis.py", "ovis", VIDSEG_DATASETS=str(tmp_path))
    assert missing.returncode == 1
    assert "instances_train2017.json" in missing.stderr
