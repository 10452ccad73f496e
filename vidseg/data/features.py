"""Data sets of sequences: documents whose frames are feature vectors in files.

Such a set is a folder. Its index, a json file that lies in it (``index.json``, unless the path of
another is given), holds::

    {
      "documents": [
        {"id": "a17", "path": "speech/a17.npy", "topic": "weather", "frame_rate": 50},
        {"id": "b02", "paths": ["b02_1.npy", "b02_2.npy"], "length": 730, "labels": "b02.txt"}
      ],
      "topics": ["sports", "weather"],    classes of whole documents, in the order of their numbers
      "classes": ["pour", "stir"],        classes of frames, likewise
      "frame_rate": 50,                   of documents that state none, in frames per second
      "key": "features",                  array of .npz files, and of .pt files with a dict
      "transposed": false,                whether the files hold (D, T) instead of (T, D)
      "feature_dim": 64                   D, to be compared with the files
    }

Only ``documents`` with ``id`` and ``path`` or ``paths`` are required. Paths are relative to the
index; several files of one document follow each other in time. ``topic`` is a name of ``topics`` or
a number, ``labels`` a list of names or numbers of ``classes``, one per frame, or the path of a text
file with one per line. ``mask`` is the path of a ``.npy`` file of T booleans, False where a frame
is missing: its features are then read as zeros. ``length`` is compared with the files.

A folder without an index works too: every feature file below it is a document, called by its path
without suffix, and the subfolder that it lies in is its topic.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import DataError, nearest
from vidseg.files import read_json

from .catalog import Record, Records, dataset_root
from .feature_files import SUFFIXES, feature_shape

__all__ = ["INDEX_NAME", "FeatureFolder", "load_feature_folder", "load_feature_index"]

INDEX_NAME = "index.json"

_DOCUMENT_KEYS = ("id", "path", "paths", "topic", "labels", "mask", "length", "frame_rate")
_INDEX_KEYS = (
    *("documents", "topics", "classes"),
    *("frame_rate", "key", "transposed", "feature_dim", "description"),
)


@dataclass(frozen=True)
class FeatureFolder:
    """Reads a folder of feature files when called; comparable.

    Args:
        folder: with an index or without; relative paths lie below the data set root.
        hint: how to get the data, added to the message when the folder is missing.
    """

    folder: str
    hint: str = ""

    def __call__(self) -> Records:
        """Gives the records; those whose files are not all sound are told in ``Records.damaged``.

        Raises:
            DataError: if the folder or all files are missing, or the index is broken.
        """
        self.require()
        folder = dataset_root() / self.folder
        index = folder / INDEX_NAME
        return load_feature_index(index) if index.is_file() else load_feature_folder(folder)

    def require(self) -> None:
        """Checks that the folder is there.

        Raises:
            DataError: if not; says how to get it.
        """
        folder = dataset_root() / self.folder
        if not folder.is_dir():
            raise DataError("; ".join(filter(None, (f"{folder} is missing", self.hint))))


def load_feature_index(index: str | Path, *, content: dict[str, Any] | None = None) -> Records:
    """Reads and checks an index, and looks at every file as far as its shape.

    Args:
        index: the json file.
        content: the parsed file, if the caller has it already.

    Returns:
        One record per document, in the order of the index: ``video_id`` (the document's id, a
        string), ``file_names``, ``lengths`` (frames of each file), ``length``, ``feature_dim``,
        ``json_file`` and, where known, ``frame_rate``, ``topic`` and ``labels`` (contiguous
        numbers), ``mask`` (booleans), ``key``, ``transposed``.

    Raises:
        DataError: if the index is broken (names the document and the key) or no document is sound.
    """
    path = Path(index)
    content = read_json(path, what="index") if content is None else content
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object")
    _refuse_unknown(content, _INDEX_KEYS, f"{path}")
    documents = content.get("documents")
    if not isinstance(documents, list) or not documents:
        raise DataError(f"{path}: documents must be a list that is not empty")
    names = {key: _names(content, key, path) for key in ("topics", "classes")}
    common = _common(content, path)
    records: dict[str, Record] = {}
    for document in documents:
        record = {**common, **_read_document(document, names, path)}
        if record["video_id"] in records:
            raise DataError(f"{path}: two documents have the id {record['video_id']!r}")
        records[record["video_id"]] = record
    dim = _feature_dim(content, path)
    return _look_at_files(list(records.values()), path, feature_dim=dim, **names)


def load_feature_folder(folder: str | Path) -> Records:
    """Finds the documents of a folder without an index, and looks at every file.

    Returns:
        Records as ``load_feature_index`` gives them, by ascending id.

    Raises:
        DataError: if there is no feature file, or none is sound, or two have the same id.
    """
    root = Path(folder)
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in SUFFIXES and not any(p[0] == "." for p in path.relative_to(root).parts)
    )
    if not files:
        raise DataError(f"{root} holds neither {INDEX_NAME} nor any {', '.join(SUFFIXES)} file")
    topics = sorted({path.relative_to(root).parts[0] for path in files if path.parent != root})
    records: dict[str, Record] = {}
    for path in files:
        inner = path.relative_to(root)
        key = inner.with_suffix("").as_posix()
        if key in records:
            raise DataError(f"{records[key]['file_names'][0]} and {path} are both document {key!r}")
        records[key] = {"video_id": key, "file_names": [str(path)], "json_file": str(root)}
        if len(inner.parts) > 1:
            records[key]["topic"] = topics.index(inner.parts[0])
    return _look_at_files([records[key] for key in sorted(records)], root, topics=topics)


def _look_at_files(
    records: Sequence[Record],
    origin: Path,
    *,
    topics: Sequence[str] = (),
    classes: Sequence[str] = (),
    feature_dim: int = 0,
) -> Records:
    """Completes the records by the shapes in the files; what is wrong shows before the first use.

    Args:
        records: of the set.
        origin: index or folder, for messages.
        topics: see ``Metadata``.
        classes: see ``Metadata``.
        feature_dim: width that the index states; 0: what most files have is expected of all.
    """
    damaged: dict[Any, str] = {}
    dims: dict[str, list[int]] = {}
    for record in records:
        try:
            lengths, dims[record["video_id"]] = _measure(record)
        except DataError as error:
            damaged[record["video_id"]] = f"{error} ({_name(record, origin)})"
            record.update(lengths=[], length=0)
            continue
        record.update(lengths=lengths, length=sum(lengths))
    if dims and not feature_dim:
        feature_dim = statistics.mode(dim for found in dims.values() for dim in found)
    for record in records:
        record["feature_dim"] = feature_dim
        for file, dim in zip(record["file_names"], dims.get(record["video_id"], ()), strict=False):
            if dim != feature_dim:
                damaged[record["video_id"]] = (
                    f"{file} has {dim} features per frame, but {origin} has {feature_dim}"
                )
    if len(damaged) == len(records):
        raise DataError(next(iter(damaged.values())))
    return Records(
        records,
        classes=classes,
        category_ids=range(len(classes)),
        annotated=any("topic" in record or "labels" in record for record in records),
        image_root=str(origin if origin.is_dir() else origin.parent),
        damaged=damaged,
        about={
            "item": "document",
            "topics": list(topics),
            "feature_dim": feature_dim,
            "image_root": str((origin if origin.is_dir() else origin.parent).absolute()),
        },
    )


def _measure(record: Record) -> tuple[list[int], list[int]]:
    """Gives length and width of every file of a document."""
    key, transposed = record.get("key", ""), record.get("transposed", False)
    shapes = [feature_shape(file, key=key, transposed=transposed) for file in record["file_names"]]
    lengths, dims = ([shape[axis] for shape in shapes] for axis in (0, 1))
    stated = {
        "length says": record.get("length"),
        "labels has": len(record["labels"]) if "labels" in record else None,
        "mask has": len(record["mask"]) if "mask" in record else None,
    }
    for words, number in stated.items():
        if number is not None and number != sum(lengths):
            files = " and ".join(record["file_names"])
            raise DataError(f"{files}: {sum(lengths)} frames, but {words} {number}")
    return lengths, dims


def _read_document(document: Any, names: dict[str, list[str]], index: Path) -> Record:
    if not isinstance(document, dict) or not _is_id(document.get("id")):
        raise DataError(f"{index}: a document lacks the key id, or it is no text or number")
    where = f"{index}: document {document['id']!r}"
    _refuse_unknown(document, _DOCUMENT_KEYS, where)
    if ("path" in document) == ("paths" in document):
        raise DataError(f"{where} must have either path or paths")
    paths = document.get("paths", [document.get("path")])
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise DataError(f"{where}: {'paths' if 'paths' in document else 'path'} names no files")
    record: Record = {
        "video_id": str(document["id"]),
        "file_names": [str(index.parent / path) for path in paths],
        "json_file": str(index),
    }
    if document.get("topic") is not None:
        record["topic"] = _number(document["topic"], names["topics"], f"{where}: topic", "topics")
    if document.get("labels") is not None:
        record["labels"] = _read_labels(document["labels"], names["classes"], index, where)
    if document.get("mask") is not None:
        record["mask"] = _read_mask(document["mask"], index, where)
    if document.get("length") is not None:
        record["length"] = document["length"]
    if document.get("frame_rate") is not None:
        record["frame_rate"] = _frame_rate(document["frame_rate"], where)
    return record


def _read_labels(labels: Any, classes: list[str], index: Path, where: str) -> list[int]:
    if isinstance(labels, str):
        path = index.parent / labels
        try:
            words: list[Any] = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise DataError(f"{where}: labels {path} cannot be read: {reason}") from None
        if words[-1] == "":
            words.pop()
        words = [word.strip() for word in words]
        where = str(path)
    elif isinstance(labels, list):
        words = labels
    else:
        raise DataError(f"{where}: labels is neither a list nor the path of a text file")
    return [
        _number(word, classes, f"{where}, frame {frame}", "classes")
        for frame, word in enumerate(words)
    ]


def _read_mask(mask: Any, index: Path, where: str) -> list[bool]:
    if not isinstance(mask, str):
        raise DataError(f"{where}: mask is no path of a .npy file")
    path = index.parent / mask
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{where}: the mask {path} cannot be read: {reason}") from None
    if not isinstance(array, np.ndarray) or array.dtype != np.bool_ or array.ndim != 1:
        raise DataError(f"{where}: the mask {path} does not hold one boolean per frame")
    kept: list[bool] = array.tolist()
    return kept


def _number(value: Any, names: list[str], where: str, key: str) -> int:
    """Gives the number of a class, of its name or number."""
    if isinstance(value, str) and value in names:
        return names.index(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return value
    close = nearest(value, names) if isinstance(value, str) else []
    hint = f"; nearest: {', '.join(close)}" if close else ""
    raise DataError(f"{where}: {value!r} is none of the {len(names)} {key}{hint}")


def _common(content: dict[str, Any], path: Path) -> Record:
    """Gives what holds for every document that does not say otherwise."""
    common: Record = {}
    if content.get("frame_rate") is not None:
        common["frame_rate"] = _frame_rate(content["frame_rate"], str(path))
    for key, kind in (("key", str), ("transposed", bool)):
        if not isinstance(content.get(key, kind()), kind):
            raise DataError(f"{path}: {key} is {content[key]!r}, expected a {kind.__name__}")
        if content.get(key):
            common[key] = content[key]
    return common


def _frame_rate(value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise DataError(f"{where}: frame_rate is {value!r}, expected a positive number")


def _feature_dim(content: dict[str, Any], path: Path) -> int:
    value = content.get("feature_dim", 0)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise DataError(f"{path}: feature_dim is {value!r}, expected a positive integer")


def _names(content: dict[str, Any], key: str, path: Path) -> list[str]:
    names = content.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: {key} must be a list of names")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: {key} has the same name twice")
    return names


def _refuse_unknown(item: dict[str, Any], known: Iterable[str], where: str) -> None:
    for key in item:
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise DataError(f"{where}: unknown key {key}; {hint}")


def _is_id(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or type(value) is int


def _name(record: Record, origin: Path) -> str:
    return f"document {record['video_id']!r} of {origin}"
