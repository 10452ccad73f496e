"""Reading of label maps: forms of pictures, forms of folders, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidseg.errors import DataError
from vidseg.evaluation.label_files import label_videos, read_ids, read_labels

LABELS = np.array([[0, 1, 2], [255, 7, 3]])


def test_grey_levels_palettes_and_many_labels(tmp_path: Path) -> None:
    grey = Image.fromarray(LABELS.astype(np.uint8))
    palette = grey.copy()
    palette.putpalette([level // 4 for level in range(768)])
    wide = Image.fromarray((LABELS * 200).astype(np.uint16))
    for name, picture, factor in (("grey", grey, 1), ("palette", palette, 1), ("wide", wide, 200)):
        picture.save(tmp_path / f"{name}.png")
        assert (read_labels(tmp_path / f"{name}.png") == LABELS * factor).all()


def test_ids_are_three_bytes(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    assert read_ids(tmp_path / "a.png").item() == 1 + 2 * 256 + 3 * 65536
    with pytest.raises(DataError, match=r"a\.png is a picture of mode RGB, expected labels"):
        read_labels(tmp_path / "a.png")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two videos of two frames, annotated as in VSPW."""
    for video in ("b", "a"):
        for frame in ("1", "0"):
            for folder in (tmp_path / "gt" / video / "mask", tmp_path / "found" / video):
                folder.mkdir(parents=True, exist_ok=True)
                level = 2 * (video == "b") + int(frame)
                Image.new("L", (3, 2), level).save(folder / f"{frame}.png")
    (tmp_path / "gt" / "readme.txt").write_text("")
    return tmp_path


def test_videos_and_frames_come_in_order(folders: Path) -> None:
    videos = list(label_videos(folders / "gt", folders / "found"))
    assert [name for name, _, _ in videos] == ["a", "b"]
    for number, (_, labels, found) in enumerate(videos):
        assert labels.shape == (2, 2, 3)
        assert labels[:, 0, 0].tolist() == found[:, 0, 0].tolist() == [2 * number, 2 * number + 1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "found" / "b").rename(root / "found" / "bb"), "b; the nearest .* bb"),
        (lambda root: (root / "found" / "b" / "0.png").unlink(), "has no 0.png of video b"),
        (lambda root: (root / "found" / "b" / "0.png").write_bytes(b""), "0.png cannot be read"),
        (
            lambda root: Image.new("L", (5, 4)).save(root / "found" / "b" / "1.png"),
            "1.png is 5x4 pixels, the first annotation of its video 3x2",
        ),
        (lambda root: (root / "gt").rename(root / "truth"), "ground truth folder .* not exist"),
        (lambda root: [f.unlink() for f in root.glob("gt/*/*/*")], "gt has no videos"),
    ],
)
def test_bad_folders_are_named(
    damage: Callable[[Path], object], message: str, folders: Path
) -> None:
    damage(folders)
    with pytest.raises(DataError, match=message):
        list(label_videos(folders / "gt", folders / "found"))
