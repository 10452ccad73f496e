"""Checks of whatever ``DATASETS.TRAIN`` and ``DATASETS.TEST`` may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidseg.data.catalog import DatasetCatalog, Records
from vidseg.data.instance_json import read_content
from vidseg.data.ytvis import find_image_root
from vidseg.errors import DataError
from vidseg.video.io import VideoReader

from .contents import read_contents
from .documents import check_documents, check_index
from .findings import Findings, listed
from .masks import check_masks
from .pictures import Effort, check_pictures

__all__ = ["check_data_set", "compare_data_sets"]


def check_data_set(name_or_path: str, effort: Effort) -> Findings:
    """Looks for what is wrong with a data set.

    Args:
        name_or_path: as in ``DATASETS.TRAIN``.
        effort: how closely to look.

    Returns:
        What was found; a set that cannot be read at all is a finding, too.

    Raises:
        DataError: if no data set has that name.
    """
    name = DatasetCatalog.resolve(name_or_path)
    findings = Findings(name_or_path)
    try:
        DatasetCatalog.require(name)
        json_file = _json_file(name)
        if json_file is not None:
            _check_json(json_file, name, findings, effort)
        else:
            _check_records(DatasetCatalog.read(name), findings, effort)
    except DataError as error:
        findings.add("unreadable", "", str(error))
    if effort.is_quick:
        findings.add("not-looked-into", "", "damaged or equal files and wrong numbers are not seen")
    return findings


def compare_data_sets(checked: Sequence[Findings]) -> None:
    """Looks for what is wrong between data sets, and adds it to the later one of each pair.

    Args:
        checked: the data sets, those of training first.
    """
    for place, later in enumerate(checked):
        for earlier in checked[:place]:
            common = [name for key, name in later.prints.items() if key in earlier.prints]
            if common:
                shared = list(dict.fromkeys(common))
                message = f"{len(shared)} are in {earlier.data_set}, too: {listed(shared)}"
                later.add("shared-data", "", message)
            for key, name in later.classes.items():
                other = earlier.classes.get(key, name)
                if other != name:
                    message = f"is {name!r}, but {other!r} in {earlier.data_set}"
                    later.add("classes-differ", f"class {key}", message)


def _json_file(name: str) -> Path | None:
    """Gives the annotation file or index of a data set, if that is what it is read from."""
    stated = DatasetCatalog.registered(name).json_file
    if not stated:
        return None
    path = Path(stated)
    if not path.exists():  # generated when it is first read
        DatasetCatalog.read(name)
    return path if path.suffix == ".json" and path.is_file() else None


def _check_json(path: Path, name: str, findings: Findings, effort: Effort) -> None:
    content = read_content(path)
    if "documents" in content:
        check_index(path, content, findings, effort)
        return
    stated = DatasetCatalog.registered(name).image_root
    image_root = Path(stated) if stated else find_image_root(path, content)
    contents = read_contents(content, findings)
    check_masks(contents.tracks, findings)
    check_pictures(contents.items.values(), image_root, findings, effort)


def _check_records(records: Records, findings: Findings, effort: Effort) -> None:
    if any("video_file" in record for record in records) or not _has_features(records):
        _check_videos(records, findings, effort)
    else:
        check_documents(records, findings, effort)


def _has_features(records: Records) -> bool:
    return any("feature_dim" in record for record in records)


def _check_videos(records: Records, findings: Findings, effort: Effort) -> None:
    """Checks videos without labels, and such as are made when they are used."""
    findings.counts["videos"] = len(records)
    for key, reason in records.damaged.items():
        findings.add("damaged-video", f"video {key}", reason)
    items = []
    for record in records:
        if record["video_id"] in records.damaged:
            continue
        if "video_file" in record:
            findings.prints.setdefault(str(Path(record["video_file"]).resolve()), _name(record))
            if not effort.is_quick:
                _decode(record, findings)
        elif record.get("file_names"):
            items.append(_item(record))
    if items:
        check_pictures(items, Path(), findings, effort)


def _item(record: dict[str, Any]) -> Any:
    from .contents import Item

    size = (record["height"], record["width"])
    return Item(record["video_id"], _name(record), record["file_names"], size, True)


def _name(record: dict[str, Any]) -> str:
    return f"video {record['video_id']}"


def _decode(record: dict[str, Any], findings: Findings) -> None:
    name = _name(record)
    try:
        decoded = sum(1 for _ in VideoReader(record["video_file"]))
    except DataError as error:
        findings.add("damaged-video", name, str(error))
        return
    if decoded < record["length"]:
        message = f"{record['video_file']}: {decoded} of {record['length']} frames decode"
        findings.add("cut-video", name, message)
