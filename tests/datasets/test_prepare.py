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
    _write(folder / "instances_train2017.json", {"annotations": [3]})
    broken = _run("prepare_coco_to_vis.py", "ovis", VIDSEG_DATASETS=str(tmp_path))
    assert (broken.returncode, len(broken.stderr.splitlines())) == (1, 1)
    assert "instances_train2017.json is no COCO instance file" in broken.stderr
