"""Folders of features as data sets: index, folder without one, and the faults of both."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidseg.data import DatasetCatalog
from vidseg.data.features import FeatureFolder, load_feature_index
from vidseg.errors import DataError


def save(path: Path, num_frames: int = 5, dim: int = 3, value: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full((num_frames, dim), value, dtype=np.float32))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes an index of two documents; ``change`` spoils it."""
    save(tmp_path / "f" / "a.npy", 5)
    save(tmp_path / "f" / "b1.npy", 4)
    save(tmp_path / "f" / "b2.npy", 2)
    (tmp_path / "b.txt").write_text("pour\nstir\nstir\npour\npour\npour")  # no last line break
    np.save(tmp_path / "mask.npy", np.array([True, False, True, True, True]))

    def make(change: Callable[[dict[str, Any]], object] | None = None) -> Path:
        content: dict[str, Any] = {
            "topics": ["sports", "weather"],
            "classes": ["pour", "stir"],
            "frame_rate": 50,
            "documents": [
                {"id": 7, "path": "f/a.npy", "topic": "weather", "mask": "mask.npy"},
                {
                    "id": "b",
                    "paths": ["f/b1.npy", "f/b2.npy"],
                    "length": 6,
                    "labels": "b.txt",
                    "frame_rate": 25.0,
                    "topic": 0,
                },
            ],
        }
        if change is not None:
            change(content)
        (tmp_path / "index.json").write_text(json.dumps(content))
        return tmp_path / "index.json"

    return make


def test_index_is_read(write: Callable[..., Path], tmp_path: Path) -> None:
    first, second = load_feature_index(write())
    assert first == {
        "video_id": "7",
        "file_names": [str(tmp_path / "f" / "a.npy")],
        "json_file": str(tmp_path / "index.json"),
        "frame_rate": 50.0,
        "topic": 1,
        "mask": [True, False, True, True, True],
        "lengths": [5],
        "length": 5,
        "feature_dim": 3,
    }
    assert second["lengths"] == [4, 2]
    assert second["labels"] == [0, 1, 1, 0, 0, 0]
    assert (second["topic"], second["frame_rate"], second["length"]) == (0, 25.0, 6)


@pytest.mark.parametrize("name", ["", "index.json"])
def test_path_is_a_name(name: str, write: Callable[..., Path]) -> None:
    given = str(write().parent / name)
    assert len(DatasetCatalog.get(given)) == 2
    known = DatasetCatalog.metadata(given)
    assert known.classes == ["pour", "stir"]
    assert known.topics == ["sports", "weather"]
    assert (known.item, known.feature_dim, known.evaluator) == ("document", 3, "")
    assert known.json_file.endswith("index.json")


def test_folder_without_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("z/1.npy", "b/2.npy", "b/deep/3.npy", "4.npy", ".hidden/5.npy", "z/.6.npy"):
        save(tmp_path / "set" / name)
    (tmp_path / "set" / "notes.txt").write_text("no features")
    records = DatasetCatalog.get(str(tmp_path / "set"))
    topics = {record["video_id"]: record.get("topic") for record in records}
    assert topics == {"4": None, "b/2": 0, "b/deep/3": 0, "z/1": 1}
    assert DatasetCatalog.metadata(str(tmp_path / "set")).topics == ["b", "z"]
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    assert len(DatasetCatalog.get("set")) == 4  # a bare name lies below the data set root
    monkeypatch.chdir(tmp_path)
    assert len(DatasetCatalog.get("./set/")) == 4


def test_folder_needs_documents_of_different_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither index\.json nor any \.npy, \.npz, \.pt"):
        DatasetCatalog.get(str(tmp_path))
    save(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"a\.npy and .*a\.npz are both document 'a'"):
        DatasetCatalog.get(str(tmp_path))
    with pytest.raises(DataError, match=r"no such file or folder: .*nowhere"):
        DatasetCatalog.get(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere is missing; run prepare"):
        FeatureFolder(str(tmp_path / "nowhere"), "run prepare")()


def _first(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["documents"][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(documents=[]), "documents must be a list that is not empty"),
        (lambda c: c.update(topic=["a"]), "unknown key topic; did you mean topics?"),
        (lambda c: c.update(topics=["a", "a"]), "topics has the same name twice"),
        (lambda c: c.update(classes="pour"), "classes must be a list of names"),
        (lambda c: c.update(frame_rate=0), "frame_rate is 0, expected a positive number"),
        (lambda c: c.update(transposed="yes"), "transposed is 'yes', expected a bool"),
        (lambda c: c.update(feature_dim=-1), "feature_dim is -1"),
        (_first("id", None), "a document lacks the key id"),
        (_first("id", "b"), "two documents have the id 'b'"),
        (_first("pth", "x"), "document 7: unknown key pth; did you mean path?"),
        (_first("paths", []), "document 7 must have either path or paths"),
        (_first("path", 3), "document 7: path names no files"),
        (_first("topic", "wether"), "document 7: topic: 'wether' is none .*nearest: weather"),
        (_first("topic", 2), "document 7: topic: 2 is none of the 2 topics"),
        (_first("topic", True), "document 7: topic: True is none"),
        (_first("labels", ["pour", "sitr"]), "document 7, frame 1: 'sitr' is none.*: stir"),
        (_first("labels", "none.txt"), "labels .*none.txt cannot be read: No such file"),
        (_first("labels", 5), "labels is neither a list nor the path"),
        (_first("mask", "f/a.npy"), "the mask .*a.npy does not hold one boolean per frame"),
        (_first("mask", "none.npy"), "the mask .*none.npy cannot be read"),
        (_first("frame_rate", "50"), "document 7: frame_rate is '50'"),
    ],
)
def test_broken_index_is_told(change: Any, message: str, write: Callable[..., Path]) -> None:
    path = write(change)
    with pytest.raises(DataError, match=message) as caught:
        load_feature_index(path)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_label_that_no_class_has_is_told_with_its_line(write: Callable[..., Path]) -> None:
    path = write()
    (path.parent / "b.txt").write_text("pour\n\nstir\n")
    with pytest.raises(DataError, match=r"b\.txt, frame 1: '' is none of the 2 classes"):
        load_feature_index(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_first("length", 6), r"a\.npy: 5 frames, but length says 6 \(document '7' of "),
        (_first("labels", ["pour"] * 4), r"a\.npy: 5 frames, but labels has 4"),
        (_first("path", "f/b1.npy"), r"b1\.npy: 4 frames, but mask has 5"),
        (_first("path", "f/none.npy"), r"the feature file .*none\.npy is missing \(document '7'"),
        (_first("path", "wide.npy"), r"wide\.npy has 4 features per frame, but .*json has 3"),
        (_first("path", "empty.npy"), r"empty\.npy has no frames"),
    ],
)
def test_unsound_document_is_damaged_and_the_others_are_not(
    change: Any, message: str, write: Callable[..., Path]
) -> None:
    path = write(change)
    save(path.parent / "wide.npy", 5, 4)
    save(path.parent / "empty.npy", 0)
    records = DatasetCatalog.read(str(path))
    assert [record["video_id"] for record in records] == ["7", "b"]
    assert list(records.damaged) == ["7"]
    with pytest.raises(DataError, match=message):
        DatasetCatalog.get(str(path))


def test_stated_width_decides_who_is_wrong(write: Callable[..., Path]) -> None:
    path = write(lambda content: content.update(feature_dim=4))
    with pytest.raises(DataError, match=r"a\.npy has 3 features per frame, but .* has 4"):
        DatasetCatalog.read(str(path))


def test_transposed_files(write: Callable[..., Path]) -> None:
    def change(content: dict[str, Any]) -> None:
        content.update(transposed=True, documents=[{"id": "a", "path": "f/a.npy"}])

    (record,) = load_feature_index(write(change))
    assert (record["length"], record["feature_dim"], record["transposed"]) == (3, 5, True)


def test_looking_at_files_reads_little_of_them(tmp_path: Path) -> None:
    with open(tmp_path / "large.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (2**20, 1024)}
        )
        os.truncate(file.fileno(), file.tell() + 2**32)  # 4 GB of nothing
    tracemalloc.start()
    (record,) = DatasetCatalog.get(str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert record["length"] == 2**20
