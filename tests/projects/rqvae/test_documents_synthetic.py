"""The generated documents: deterministic, of disjoint splits, and with the traits they are for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vidseg.data import DatasetCatalog
from vidseg.data.feature_files import read_features
from vidseg.errors import DataError
from vidseg.projects.rqvae import documents_synthetic
from vidseg.projects.rqvae.documents_synthetic import (
    TOPICS,
    _grammar,
    _play,
    _speak,
    generate_documents,
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the splits small, in a cache of their own."""
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path))
    for number, split in enumerate(("train", "val", "test")):
        size = documents_synthetic._Split(number + 1, 14)
        monkeypatch.setitem(documents_synthetic._SPLITS, split, size)
    return tmp_path / f"documents_synthetic-v{documents_synthetic._VERSION}"


def test_catalog_generates_on_first_use(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = DatasetCatalog.metadata("documents_synthetic_val")
    assert (known.topics, known.feature_dim, known.item) == (TOPICS, 64, "document")
    assert known.evaluator == "document_codes"
    assert not small.exists()  # all of this is known without them
    with caplog.at_level("INFO"):
        records = DatasetCatalog.get("documents_synthetic_val")
    assert f"generating documents_synthetic_val in {small / 'val'}" in caplog.text
    assert [record["topic"] for record in records] == [*range(12), 0, 1]
    assert {record["frame_rate"] for record in records} == {50.0}
    assert all(300 <= record["length"] <= 600 for record in records)
    assert len({record["length"] for record in records}) > 10
    files = {path: path.stat().st_mtime_ns for path in (small / "val").iterdir()}
    DatasetCatalog.get("documents_synthetic_val")
    assert {path: path.stat().st_mtime_ns for path in (small / "val").iterdir()} == files


def test_damage_tells_the_way_out(small: Path) -> None:
    DatasetCatalog.get("documents_synthetic_test")
    (small / "test" / "0003.npy").unlink()
    with pytest.raises(DataError, match=r"0003\.npy is missing .*; remove .*test to have it gen"):
        DatasetCatalog.get("documents_synthetic_test")
    (small / "test" / "index.json").unlink()
    with pytest.raises(DataError, match=r"index\.json does not exist; remove .*test to have it"):
        DatasetCatalog.get("documents_synthetic_test")


def test_same_seed_gives_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate_documents(tmp_path / name, seed=seed, num_documents=2)
    for file in ("0000.npy", "0001.npy", "index.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    documents = [
        read_features(tmp_path / name / f"{number:04d}.npy") for name in "ac" for number in (0, 1)
    ]
    assert len({document.tobytes() for document in documents}) == 4


def test_twins_are_each_other_backwards() -> None:
    grammar = _grammar()
    half = len(grammar.curves) // 2
    for event in range(half):
        forward = _play(grammar, event, np.random.default_rng(event))
        backward = _play(grammar, event + half, np.random.default_rng(event))
        assert np.allclose(forward, backward[::-1])
        assert not np.allclose(forward, backward, atol=0.1)


def _documents(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    grammar = _grammar()
    topics = np.arange(count) % len(TOPICS)
    rngs = [np.random.default_rng((9, number)) for number in range(count)]
    documents = [_speak(grammar, *pair) for pair in zip(topics, rngs, strict=True)]
    frames = np.concatenate(documents)
    mean, std = frames.mean(0), frames.std(0)
    return [(document - mean) / std for document in documents], topics


def _windows(document: np.ndarray, window: int = 24, stride: int = 12) -> np.ndarray:
    starts = range(0, len(document) - window + 1, stride)
    return np.stack([document[start : start + window].ravel() for start in starts])


def _recall_at_1(similarity: np.ndarray, topics: np.ndarray) -> float:
    np.fill_diagonal(similarity, -np.inf)
    return float((topics[similarity.argmax(1)] == topics).mean())


def test_windows_can_be_compressed_but_not_at_will() -> None:
    documents, _ = _documents(36)
    windows = np.concatenate([_windows(document) for document in documents])
    values = np.linalg.eigvalsh(np.cov(windows.T))[::-1]
    left = 1 - values.cumsum() / values.sum()
    assert 4 < -10 * np.log10(left[31]) < 8  # dB with 32 of the 1536 dimensions of a window
    assert 7 < -10 * np.log10(left[63]) < 11


def test_topics_show_in_the_order_of_frames_only() -> None:
    documents, topics = _documents(72)
    means = np.stack([document.mean(0) for document in documents])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert _recall_at_1(means @ means.T, topics) < 0.35

    windows = [_windows(document) for document in documents]
    windows = [w / np.linalg.norm(w, axis=1, keepdims=True) for w in windows]
    similarity = np.zeros((72, 72))
    for i, mine in enumerate(windows):
        for j, other in enumerate(windows):
            similarity[i, j] = (mine @ other.T).max(1).mean()
    assert _recall_at_1(similarity + similarity.T, topics) > 0.5


@pytest.mark.slow
def test_name_is_found_without_being_told_where() -> None:
    code = (
        "import sys; from vidseg.data import DatasetCatalog as c; c.metadata('ovis_val');"
        "assert not any(name.startswith('vidseg.projects.') for name in sys.modules);"
        "assert c.metadata('documents_synthetic_test').feature_dim == 64"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
