"""What is missing of a public data set is told in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidseg.data.checks import Layout, look_at_layout, public_layouts

FAMILIES = (
    *("ytvis_2019", "ytvis_2021", "ytvis_2022", "ovis", "coco_2017", "davis_2016", "davis_2017"),
    *("davis_2017_unsupervised", "kitti_mots", "mots20", "vipseg", "vspw", "uvo"),
)


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))


def fill(layout: Layout, root: Path) -> None:
    """Puts empty files where they are expected, for two videos."""
    for need in layout.needs:
        holds = need.holds.replace("*.", "1.")
        names = [holds.replace("*", video, 1) for video in ("a", "b")]
        for path in {root / need.path / name for name in names}:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    if layout.videos:
        (root / layout.videos).write_text("a\nb\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_expected_is_found(family: str, tmp_path: Path) -> None:
    layouts = [layout for name, layout in public_layouts().items() if name.startswith(family)]
    assert layouts
    for number, layout in enumerate(layouts):
        root = tmp_path / str(number)
        assert look_at_layout(layout, root)[0] == "missing"
        fill(layout, root)
        assert look_at_layout(layout, root) == ("there", "")


def rename(before: str, after: str) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        (root / after).parent.mkdir(parents=True, exist_ok=True)
        (root / before).rename(root / after)

    return change


def remove(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).unlink()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "ytvis_2021_train",
            rename("ytvis_2021/train.json", "ytvis_2021/train/instances.json"),
            "there is no file ytvis_2021/train.json; ytvis_2021/train/instances.json is there: "
            "rename it to ytvis_2021/train.json",
        ),
        (
            "ovis_train",
            rename("ovis", "OVIS"),
            "there is no file ovis/annotations/annotations_train.json; OVIS is there: rename it",
        ),
        (
            "ovis_train",
            rename("ovis/train", "ovis/frames/train"),
            "there is no folder ovis/train; ovis/frames/train is there: move it to ovis/train",
        ),
        (
            "vspw_val",
            rename("VSPW_480p/data", "VSPW_480p/data2/data"),
            "there is no folder VSPW_480p/data; VSPW_480p/data2/data is there: move it to "
            "VSPW_480p/data",
        ),
        (
            "vspw_val",
            lambda root: (root / "VSPW_480p" / "val.txt").write_text("a\nc\n\nd"),
            "VSPW_480p/data lacks 2 of 3 videos of VSPW_480p/val.txt: c, d",
        ),
        (
            "davis_2016_val",
            lambda root: (root / "DAVIS/ImageSets/2016/val.txt").write_text(
                "/J/x/0.jpg /A/x/0.png"
            ),
            "DAVIS/JPEGImages/480p lacks 1 of 1 videos of DAVIS/ImageSets/2016/val.txt: x",
        ),
        (
            "davis_2017_train",
            lambda root: (root / "DAVIS/ImageSets/2017/train.txt").write_text("\n"),
            "DAVIS/ImageSets/2017/train.txt names no videos",
        ),
        (
            "davis_2017_train",
            remove("DAVIS/Annotations/480p/b/1.png"),
            "1 of 2 folders in DAVIS/Annotations/480p hold no *.png: b",
        ),
        (
            "mots20",
            remove("MOTS20/train/a/gt/gt.txt"),
            "1 of 2 folders in MOTS20/train hold no gt/gt.txt: a",
        ),
        ("coco_2017_val", remove("coco/val2017/1.jpg"), "coco/val2017 holds no *.jpg"),
    ],
)
def test_what_is_missing(
    name: str, change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    layout = public_layouts()[name]
    fill(layout, tmp_path)
    change(tmp_path)
    assert look_at_layout(layout, tmp_path) == ("partly", message)


def test_pictures_in_other_places(tmp_path: Path) -> None:
    layout = public_layouts()["uvo_val"]
    fill(layout, tmp_path)
    frames = tmp_path / "UVO" / "uvo_videos_dense_frames"
    inner = tmp_path / "inner"
    frames.rename(inner)
    frames.mkdir()
    assert look_at_layout(layout, tmp_path)[1].endswith(
        "holds no folders, one per video, with *.png"
    )
    (frames / "1.png").touch()
    assert look_at_layout(layout, tmp_path)[1].endswith("; the pictures lie in it directly")
    (frames / "1.png").unlink()
    inner.rename(frames / "frames")
    assert look_at_layout(layout, tmp_path)[1].endswith(
        "; UVO/uvo_videos_dense_frames/frames does: move what is in it one level up"
    )
    (frames / "frames").rename(inner)
    (frames / "a").mkdir()
    (frames / "a" / "0.webp").touch()
    (frames / "b").mkdir()
    assert look_at_layout(layout, tmp_path)[1].endswith("such as a, hold no *.png, but .webp")


def test_masks_as_text_are_enough(tmp_path: Path) -> None:
    layout = public_layouts()["kitti_mots"]
    fill(layout, tmp_path)
    (tmp_path / "KITTI_MOTS" / "instances").rename(tmp_path / "KITTI_MOTS" / "instances_txt")
    assert look_at_layout(layout, tmp_path)[0] == "there"
