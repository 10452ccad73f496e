"""The frames of videos: whether they are there, can be decoded and have the stated size."""

from __future__ import annotations

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .contents import Item
from .findings import Findings, listed

__all__ = ["Effort", "check_pictures"]

_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
_AHEAD = 64  # pictures given out to the threads, per thread


@dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Args:
        is_quick: only what the headers of files say.
        workers: threads that decode.
    """

    is_quick: bool = False
    workers: int = 1


@dataclass(frozen=True)
class _Picture:
    """What a file is: its upright size, or why it cannot be read."""

    size: tuple[int, int] = (0, 0)
    error: str = ""
    is_turned: bool = False
    is_blank: bool = False
    digest: str = ""


def check_pictures(
    items: Iterable[Item], image_root: Path, findings: Findings, effort: Effort
) -> None:
    """Looks for all frames and opens each.

    Args:
        items: videos or images.
        image_root: folder that their file names are relative to.
        findings: receives the defects.
        effort: how closely to look.
    """
    folders: dict[str, set[str]] = {}
    jobs: list[tuple[Item, str]] = []
    for item in items:
        paths = [str(image_root / file) for file in dict.fromkeys(item.files)]
        missing = [path for path in paths if not _exists(path, folders)]
        if missing:
            what = "all" if len(missing) == len(paths) else f"{len(missing)} of {len(paths)}"
            hint = _near_name(missing[0], folders)
            message = f"{what} are missing, the first is {missing[0]}{hint}"
            findings.add("missing-frame", item.name, message)
        gone = set(missing)
        jobs += [(item, path) for path in paths if path not in gone]
    told: dict[tuple[str, Any], list[str]] = defaultdict(list)
    owners: dict[str, Item] = {}
    twins: dict[tuple[str, str], list[str]] = defaultdict(list)
    pictures = _open_all([path for _, path in jobs], effort)
    before: tuple[Any, str] = (None, "")
    for (item, path), picture in zip(jobs, pictures, strict=True):
        for kind, message in _judge(picture, item, path):
            told[kind, item.name].append(message)
        findings.prints.setdefault(os.path.realpath(path), item.name)
        if picture.digest:
            if before == (item.key, picture.digest):
                told["still-frame", item.name].append(path)
            before = (item.key, picture.digest)
            findings.prints.setdefault(picture.digest, item.name)
            other = owners.setdefault(picture.digest, item)
            if other is not item:
                twins[other.name, item.name].append(path)
    for (kind, name), messages in told.items():
        more = f", and {len(messages) - 1} frames more" if len(messages) > 1 else ""
        findings.add(kind, name, messages[0] + more)
    for (first, second), files in twins.items():
        findings.add("same-picture", second, f"has {len(files)} pictures of {first}, as {files[0]}")
    findings.counts["pictures"] = len(jobs)


def _judge(picture: _Picture, item: Item, path: str) -> Iterator[tuple[str, str]]:
    if picture.error:
        yield "damaged-frame", f"{path} {picture.error}"
        return
    if item.size is not None and picture.size != item.size:
        size = "{} high and {} wide".format(*picture.size)
        stated = "height {} and width {}".format(*item.size)
        yield "frame-size", f"{path} is {size}, the data set states {stated}"
    if picture.is_turned:
        yield "turned-frame", path
    if picture.is_blank:
        yield "blank-frame", path


def _open_all(paths: list[str], effort: Effort) -> Iterator[_Picture]:
    """Opens files in threads, which the decoders let run at the same time, in the given order."""
    progress = tqdm(total=len(paths), desc="pictures", unit="", disable=None, leave=False)
    with ThreadPoolExecutor(effort.workers) as pool, progress:
        waiting = iter(paths)
        ahead = [pool.submit(_open, path, effort) for path in islice(waiting, _AHEAD)]
        while ahead:
            # Not `map`, which would hold what is known of all pictures at once.
            yield ahead.pop(0).result()
            ahead += [pool.submit(_open, path, effort) for path in islice(waiting, 1)]
            progress.update()


def _open(path: str, effort: Effort) -> _Picture:
    from PIL import Image

    try:
        data = b"" if effort.is_quick else Path(path).read_bytes()
        if os.path.getsize(path) == 0:
            return _Picture(error="is empty (0 bytes)")
        with Image.open(path if effort.is_quick else io.BytesIO(data)) as image:
            width, height = image.size
            # For some formats, looking for EXIF data that do not stand in front decodes all.
            has_exif = "exif" in image.info or not effort.is_quick
            orientation = image.getexif().get(_ORIENTATION, 1) if has_exif else 1
            size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
            is_turned = orientation not in (0, 1)
            if effort.is_quick:
                return _Picture(size, is_turned=is_turned)
            extrema = image.convert("RGB").getextrema()
    except Image.UnidentifiedImageError:
        return _Picture(error="is not a picture that can be read")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return _Picture(error=f"cannot be decoded: {error}")
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    is_blank = all(low == high for low, high in extrema)  # type: ignore[misc]
    return _Picture(size, is_turned=is_turned, is_blank=is_blank, digest=digest)


def _exists(path: str, folders: dict[str, set[str]]) -> bool:
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = _names_in(folder)
    return name in folders[folder] or os.path.exists(path)


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _near_name(path: str, folders: dict[str, set[str]]) -> str:
    """Hints at a wrong separator, or at a file that differs in case or suffix only."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0].lower()
    if "\\" in name:
        return "; folders in file_names are parted by /"
    near = sorted(n for n in folders[folder] if os.path.splitext(n)[0].lower() == stem)
    return f"; there is {listed(near, 1)}" if near else ""
