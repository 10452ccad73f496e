from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidseg.data import ClipMapper, DatasetCatalog
from vidseg.data.catalog import Catalog
from vidseg.data.features import FeatureFolder
from vidseg.data.video_folder import VideoFolder, holds_videos, load_video_folder, video_images
from vidseg.errors import DataError
from vidseg.video.io import VideoWriter


def write_pictures(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (24, 16), (40 * number, 0, 0)).save(folder / f"frame{number}.png")


def write_video(path: Path, count: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=10) as writer:
        for number in range(count):
            writer.write(np.full((16, 24, 3), 30 * number, dtype=np.uint8))


def test_a_folder_of_videos_is_a_data_set(tmp_path: Path) -> None:
    write_video(tmp_path / "clip10.mp4")
    write_video(tmp_path / "clip2.mp4", 4)
    write_pictures(tmp_path / "still", 11)
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".hidden.mp4").write_text("no video")
    records = DatasetCatalog.get(str(tmp_path))
    found = [(record["video_id"], record["length"]) for record in records]
    assert found == [("clip2", 4), ("clip10", 6), ("still", 11)]
    assert all((record["height"], record["width"]) == (16, 24) for record in records)
    assert [Path(name).name for name in records[2]["file_names"][-2:]] == [
        "frame9.png",
        "frame10.png",
    ]
    assert not records.annotated
    known = DatasetCatalog.metadata(str(tmp_path))
    assert (known.evaluator, known.classes, known.feature_dim) == ("", [], 0)
    frames = list(video_images(records[0]))
    assert [round(float(frame.mean()) / 30) for frame in frames] == [0, 1, 2, 3]


def test_a_folder_of_pictures_is_one_video(tmp_path: Path) -> None:
    write_pictures(tmp_path / "walk")
    (record,) = DatasetCatalog.get(str(tmp_path / "walk"))
    assert (record["video_id"], record["length"]) == ("walk", 3)
    sample = ClipMapper(None)(record, np.random.default_rng(0))
    assert sample["frames"].shape == (3, 3, 16, 24)


def test_relative_folders_lie_below_the_data_set_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "mine" / "a.mp4")
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    assert [record["video_id"] for record in Catalog().get("mine")] == ["a"]


def test_features_are_still_features(tmp_path: Path) -> None:
    (tmp_path / "topic").mkdir()
    np.save(tmp_path / "topic" / "one.npy", np.zeros((5, 3), dtype=np.float32))
    assert not holds_videos(tmp_path)
    assert DatasetCatalog.metadata(str(tmp_path)).feature_dim == 3
    write_video(tmp_path / "video.mp4")
    (tmp_path / "index.json").write_text('{"documents": [{"id": 1, "path": "topic/one.npy"}]}')
    assert FeatureFolder(str(tmp_path))()[0]["feature_dim"] == 3
    write_video(tmp_path / "b" / "video.mp4")
    assert DatasetCatalog.get(str(tmp_path / "b"))[0]["length"] == 6


def test_damaged_videos_are_told(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"")
    records = load_video_folder(tmp_path)
    assert list(records.damaged) == ["b"]
    assert "b.mp4 is empty" in records.damaged["b"]
    with pytest.raises(DataError, match=r"b\.mp4 is empty"):
        DatasetCatalog.get(str(tmp_path))
    assert len(DatasetCatalog.read(str(tmp_path))) == 2
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(DataError, match=r"b\.mp4 is empty"):
        load_video_folder(tmp_path)


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder of videos .*nowhere is missing"):
        VideoFolder(str(tmp_path / "nowhere"))()
    with pytest.raises(DataError, match="no such file or folder"):
        DatasetCatalog.get(str(tmp_path / "nowhere"))


def test_mappers_of_pictures_say_that_a_file_holds_none(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    (record,) = load_video_folder(tmp_path)
    with pytest.raises(DataError, match=r"video a .*a\.mp4.* no pictures.*extract its frames"):
        ClipMapper(None)(record, np.random.default_rng(0))
