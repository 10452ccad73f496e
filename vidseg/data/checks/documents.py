"""Sequences of feature vectors."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vidseg.data.catalog import Record, Records
from vidseg.data.feature_files import read_features
from vidseg.data.features import load_feature_index
from vidseg.errors import DataError

from .findings import Findings, listed
from .pictures import Effort

__all__ = ["check_documents", "check_index"]


def check_index(path: Path, content: dict[str, Any], findings: Findings, effort: Effort) -> None:
    """Checks an index of documents, each by itself.

    Args:
        path: of the index.
        content: of it.
        findings: receives the defects.
        effort: how closely to look.
    """
    documents = content.get("documents")
    if not isinstance(documents, list) or not documents:
        findings.add("missing-key", "documents", "a list that is not empty is expected")
        return
    common = {**content, "feature_dim": 0}
    stated = content.get("feature_dim") or 0
    if type(stated) is not int or stated < 0:
        findings.add("wrong-value", "feature_dim", f"is {stated!r}, expected a positive integer")
        stated = 0
    records: list[Record] = []
    names = Counter(_id_of(document) for document in documents)
    for name, count in names.items():
        if count > 1:
            findings.add("duplicate-id", f"document {name}", f"{count} documents have this id")
    for document in documents:
        try:
            # One by one, so that a defect of one does not hide those of others.
            records += load_feature_index(path, content={**common, "documents": [document]})
        except DataError as error:
            findings.add("damaged-document", f"document {_id_of(document)}", str(error))
    topics, classes = content.get("topics") or [], content.get("classes") or []
    findings.classes = dict(enumerate(classes))
    _check_use(records, topics, "topic", findings)
    _check_use(records, classes, "class", findings)
    findings.counts["documents"] = len(documents)
    _check_widths(records, stated, findings)
    _check_features(records, findings, effort)


def check_documents(records: Records, findings: Findings, effort: Effort) -> None:
    """Checks documents that a folder or the files of a project make.

    Args:
        records: of the set.
        findings: receives the defects.
        effort: how closely to look.
    """
    for key, reason in records.damaged.items():
        findings.add("damaged-document", f"document {key}", reason)
    sound = [record for record in records if record["video_id"] not in records.damaged]
    findings.classes = dict(zip(records.category_ids, records.classes, strict=True))
    _check_use(sound, records.about.get("topics") or [], "topic", findings)
    _check_use(sound, records.classes, "class", findings)
    findings.counts["documents"] = len(records)
    _check_features(sound, findings, effort)


def _id_of(document: Any) -> str:
    return str(document.get("id", "without id")) if isinstance(document, dict) else repr(document)


def _check_use(
    records: Sequence[Record], names: Sequence[str], word: str, findings: Findings
) -> None:
    used: set[int] = set()
    for record in records:
        if word == "topic":
            used |= {record["topic"]} if "topic" in record else set()
        else:
            used.update(record.get("labels") or ())
    unused = [name for number, name in enumerate(names) if number not in used]
    if unused:
        what = "topics" if word == "topic" else "classes"
        message = f"{len(unused)} of {len(names)} {what}: {listed(unused)}"
        findings.add("unused-class", "", message)
    without = [record["video_id"] for record in records if word not in record]
    if word == "topic" and used and without:
        message = f"{len(without)} documents have no topic: {listed(without)}"
        findings.add("no-objects", "", message)


def _check_widths(records: Sequence[Record], stated: int, findings: Findings) -> None:
    widths = Counter(record["feature_dim"] for record in records)
    expected = stated or (widths.most_common(1)[0][0] if widths else 0)
    for record in records:
        if record["feature_dim"] != expected:
            message = f"has {record['feature_dim']} features per frame, expected {expected}"
            findings.add("feature-dim", f"document {record['video_id']}", message)


def _check_features(records: Sequence[Record], findings: Findings, effort: Effort) -> None:
    owners: dict[str, str] = {}
    frames = 0
    for record in tqdm(records, desc="documents", unit="", disable=None, leave=False):
        name = f"document {record['video_id']}"
        frames += record["length"]
        if effort.is_quick:
            continue
        try:
            features = _read(record)
        except DataError as error:
            findings.add("damaged-document", name, str(error))
            continue
        if features is None:  # made when it is used
            continue
        _check_numbers(features, record, name, findings)
        digest = hashlib.blake2b(features.tobytes(), digest_size=16).hexdigest()
        findings.prints.setdefault(digest, name)
        other = owners.setdefault(digest, name)
        if other != name:
            findings.add("same-document", name, f"has the features of {other}")
    findings.counts["frames"] = frames


def _read(record: Record) -> np.ndarray | None:
    key, transposed = record.get("key", ""), record.get("transposed", False)
    files = record.get("file_names") or []
    parts = [read_features(file, key=key, transposed=transposed) for file in files]
    return np.concatenate(parts) if parts else None


def _check_numbers(features: np.ndarray, record: Record, name: str, findings: Findings) -> None:
    kept = features
    if "mask" in record:
        kept = features[np.asarray(record["mask"], dtype=bool)]
    wrong = np.flatnonzero(~np.isfinite(kept).all(1))
    if len(wrong):
        message = f"{len(wrong)} of {len(kept)} frames, the first of {record['file_names'][0]}"
        findings.add("not-finite", name, f"{message} is {wrong[0]}")
    elif len(kept) > 1 and (kept == kept[0]).all():
        findings.add("constant-document", name, f"{len(kept)} frames of {record['file_names'][0]}")
