"""Where the files of public data sets are expected, and what is missing there.

Only folders are looked at, and lists of videos; ``check_data_set`` reads what they hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidseg.data.catalog import DatasetCatalog, dataset_root
from vidseg.errors import DataError

from .findings import listed

__all__ = ["STATES", "Layout", "Need", "look_at_layout", "public_layouts", "seen_elsewhere"]

STATES = ("there", "partly", "missing")
"""What ``look_at_layout`` finds: everything, some of it or something like it, nothing."""

_PICTURES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Need:
    """A file, or a folder with what it must hold.

    Args:
        path: below the data set root.
        holds: pattern of what a folder must hold: ``*.jpg``, or ``*/*.jpg`` if each of its folders
            must hold such files; ``""`` for a file.
        instead: path of what may be there instead, for who needs only one of the two.
    """

    path: str
    holds: str = ""
    instead: str = ""

    def __str__(self) -> str:
        """Shows what is expected."""
        shown = self.path
        if self.holds:
            shown += "/" + ("<video>" + self.holds[1:] if self.holds[:2] == "*/" else self.holds)
        return shown + (f" (or {self.instead})" if self.instead else "")


@dataclass(frozen=True)
class Layout:
    """What a split of a data set consists of.

    Args:
        name: as in ``DATASETS.TRAIN``, or of its own if the split cannot be named there.
        needs: what must be there.
        step: how to get it, and how it is used.
        videos: path of the list of its videos, one a line, each of which every folder of videos
            must have; ``""`` if there is none.
    """

    name: str
    needs: tuple[Need, ...]
    step: str
    videos: str = ""


def public_layouts() -> dict[str, Layout]:
    """Gives the layouts of all public data sets by name, sorted."""
    layouts = [*_of_catalog(), *_others()]
    return {layout.name: layout for layout in sorted(layouts, key=lambda layout: layout.name)}


def look_at_layout(layout: Layout, root: Path) -> tuple[str, str]:
    """Looks whether all of a split is in its place.

    Args:
        layout: of the split.
        root: the data set root.

    Returns:
        One of ``STATES``, and in one sentence what is missing first, ``""`` if nothing is.
    """
    problems = [_problem(need, root) for need in layout.needs]
    first = next(filter(None, problems), "")
    if not first and layout.videos:
        first = _missing_videos(layout, root)
    if not first:
        return STATES[0], ""
    is_known = any((root / need.path).exists() for need in layout.needs) or "; " in first
    return STATES[1 if is_known else 2], first


def _of_catalog() -> Iterator[Layout]:
    root = dataset_root()
    for name in DatasetCatalog.names():
        known = DatasetCatalog.registered(name)
        if not (known.prepare and known.json_file and known.image_root):
            continue  # generated, somebody's own, or of a project
        paths = [Path(path) for path in (known.json_file, known.image_root)]
        if not all(path.is_relative_to(root) for path in paths):
            continue  # read before from another place
        json_file, images = (path.relative_to(root).as_posix() for path in paths)
        pattern = "*.jpg" if known.family == "coco" else "*/*.jpg"
        step = known.prepare.splitlines()[-1].removeprefix("to prepare it, ")
        needs = (Need(json_file), Need(images, pattern))
        yield Layout(name, needs, step.removesuffix("; see datasets/README.md"))


def _others() -> Iterator[Layout]:
    """Gives those that scripts convert, or that are evaluated from their files."""
    for year, subset in (("2016", ""), ("2017", ""), ("2017", "_unsupervised")):
        for split in ("train", "val"):
            annotations = f"DAVIS/Annotations{subset}/480p"
            videos = f"DAVIS/ImageSets/{year}/{split}.txt"
            images = Need("DAVIS/JPEGImages/480p", "*/*.jpg")
            needs = (Need(videos), images, Need(annotations, "*/*.png"))
            options = f"--split {split} --year {year}"
            options += f" --annotations Annotations{subset}" if subset else ""
            step = (
                f"get it from https://davischallenge.org/davis{year}/code.html, and run: "
                f"python datasets/prepare_davis.py DAVIS {options}"
            )
            yield Layout(f"davis_{year}{subset}_{split}", needs, step, videos)
    mots = "get it from https://www.vision.rwth-aachen.de/page/mots, and run: "
    yield Layout(
        "kitti_mots",
        (
            Need("KITTI_MOTS/training/image_02", "*/*.png"),
            Need("KITTI_MOTS/instances", "*/*.png", instead="KITTI_MOTS/instances_txt"),
        ),
        mots + "python datasets/prepare_mots.py KITTI_MOTS",
    )
    yield Layout(
        "mots20",
        (Need("MOTS20/train", "*/img1/*.jpg"), Need("MOTS20/train", "*/gt/gt.txt")),
        mots + "python datasets/prepare_mots.py MOTS20/train",
    )
    for split in ("train", "val"):
        folder = "VIPSeg/VIPSeg_720P"
        yield Layout(
            f"vipseg_{split}",
            (
                Need(f"{folder}/panoptic_gt_VIPSeg_{split}.json"),
                Need(f"{folder}/images", "*/*.jpg"),
                Need(f"{folder}/panomasksRGB", "*/*.png"),
            ),
            "get it from https://github.com/VIPSeg-Dataset/VIPSeg-Dataset and run its scripts; "
            "predictions are scored by: python tools/evaluate.py vps",
        )
        yield Layout(
            f"vspw_{split}",
            (
                Need(f"VSPW_480p/{split}.txt"),
                Need("VSPW_480p/data", "*/origin/*.jpg"),
                Need("VSPW_480p/data", "*/mask/*.png"),
            ),
            "get it from https://www.vspwdataset.com; predictions are scored by: "
            "python tools/evaluate.py vss",
            videos=f"VSPW_480p/{split}.txt",
        )
        yield Layout(
            f"uvo_{split}",
            (
                Need(f"UVO/VideoDenseSet/UVO_video_{split}_dense.json"),
                Need("UVO/uvo_videos_dense_frames", "*/*.png"),
            ),
            "get it from https://sites.google.com/view/unidentified-video-object/dataset and take "
            "the frames out of the videos; DATASETS.TRAIN takes the path of the json file, with a "
            'key "image_root": "../uvo_videos_dense_frames" at its top',
        )


def _problem(need: Need, root: Path) -> str:
    """Tells in a sentence why something is not as it should be, ``""`` if it is."""
    path = root / need.path
    if need.instead and (root / need.instead).exists():
        return ""
    if not (path.is_dir() if need.holds else path.is_file()):
        kind = "folder" if need.holds else "file"
        return f"there is no {kind} {need.path}{seen_elsewhere(need.path, root)}"
    if not need.holds:
        return ""
    if need.holds[:2] != "*/":
        return "" if _has(path, need.holds) else f"{need.path} holds no {need.holds}"
    inner = need.holds[2:]
    folders = _folders(path)
    if not folders:
        lies = any(_has(path, f"*{suffix}") for suffix in _PICTURES)
        more = "; the pictures lie in it directly" if lies else ""
        return f"{need.path} holds no folders, one per video, with {inner}{more}"
    empty = [folder for folder in folders if not _has(folder, inner)]
    if not empty:
        return ""
    if len(empty) < len(folders):
        names = listed(folder.name for folder in empty)
        return f"{len(empty)} of {len(folders)} folders in {need.path} hold no {inner}: {names}"
    inside = folders[0]
    if len(folders) == 1 and any(_has(one, inner) for one in _folders(inside)):
        return (
            f"{need.path} holds no {need.holds}; {need.path}/{inside.name} does: move what is in "
            "it one level up"
        )
    found = sorted({file.suffix for file in inside.iterdir() if file.is_file()})
    more = f", but {listed(found)}" if found else ""
    return f"the folders in {need.path}, such as {inside.name}, hold no {inner}{more}"


def seen_elsewhere(path: str, root: Path) -> str:
    """Tells where something is that looks like what is missing, as the end of a sentence.

    Args:
        path: of what is missing, below the data set root.
        root: the data set root.

    Returns:
        Begins with ``"; "``, or is ``""`` if nothing looks like it.
    """
    top, *rest = Path(path).parts
    folder = root
    for depth, part in enumerate((top, *rest)):
        if (folder / part).exists():
            folder = folder / part
            continue
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            names = []
        alike = [name for name in names if name.casefold() == part.casefold()]
        deeper = [name for name in names if (folder / name / part).exists()] if depth else []
        split = Path(part).stem  # YouTube-VIS is packed as train/instances.json
        packed = folder / split / "instances.json"
        where = Path(path).parents[len(rest) - depth]
        if alike:
            return f"; {(where / alike[0]).as_posix()} is there: rename it"
        if part.endswith(".json") and packed.is_file():
            found = (where / split / "instances.json").as_posix()
            return f"; {found} is there: rename it to {path}"
        if deeper:
            found = (where / deeper[0] / part).as_posix()
            return f"; {found} is there: move it to {(where / part).as_posix()}"
        return ""
    return ""


def _missing_videos(layout: Layout, root: Path) -> str:
    """Tells of videos that the list names and a folder lacks."""
    try:
        lines = (root / layout.videos).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{layout.videos} cannot be read"
    names = [line.split()[0] for line in lines if line.strip()]
    # DAVIS 2016 lists paths of pictures
    videos = dict.fromkeys(Path(one).parent.name if "/" in one else one for one in names)
    if not videos:
        return f"{layout.videos} names no videos"
    for need in layout.needs:
        if need.holds[:2] == "*/":
            held = {folder.name for folder in _folders(root / need.path)}
            missing = [video for video in videos if video not in held]
            if missing:
                number = f"{len(missing)} of {len(videos)} videos"
                return f"{need.path} lacks {number} of {layout.videos}: {listed(missing)}"
    return ""


def _folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir() and one.name[0] != ".")


def _has(folder: Path, pattern: str) -> bool:
    try:
        return next(folder.glob(pattern), None) is not None
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from None
