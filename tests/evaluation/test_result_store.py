"""Results of videos on disk: taken over, dropped, sent between ranks that share no disk."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidseg.errors import DataError, ResourceError
from vidseg.evaluation import Evaluator, ResultStore

CONDITIONS = {"the weights": "abc", "INPUT.MIN_SIZE_TEST": 360, "sizes": (1, 2)}


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    store = ResultStore(tmp_path / "videos")
    assert store.open(CONDITIONS) == (0, list(CONDITIONS))
    return store


def reopened(store: ResultStore) -> ResultStore:
    again = ResultStore(store.directory)
    assert again.open(CONDITIONS) == (0, [])
    return again


def test_results_outlive_the_process_to_the_digit(store: ResultStore) -> None:
    results = {7: [0.1 + 0.2, None], "7": {"a": 1e-300}, "é/ü *": [], "x" * 60: "text"}
    store.update(results)
    again = reopened(store)
    assert dict(again) == results
    assert len(again) == 4
    assert 8 not in again
    with pytest.raises(KeyError):
        again[8]
    del again[7]
    assert 7 not in reopened(store)


def test_what_another_rank_has_written_is_found(store: ResultStore) -> None:
    other = reopened(store)
    store[1], other[2] = "one", "two"
    assert dict(store) == {1: "one"}
    store.look_again()
    assert dict(store) == {1: "one", 2: "two"}


def test_two_ranks_may_clear_at_once(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store[1] = "text"

    def find() -> dict[Any, Path]:
        shutil.rmtree(
            store.directory, ignore_errors=True
        )  # the other rank, between looking and listing
        raise FileNotFoundError(2, "No such file or directory", str(store.directory))

    monkeypatch.setattr(store, "_find", find)
    store.clear()
    assert not store.directory.exists()
    assert len(store) == 0
    store.clear()


def test_half_written_and_foreign_files_are_no_results(store: ResultStore) -> None:
    store[1] = "one"
    (store.directory / ".2.json.99.tmp").write_text('"tw')
    (store.directory / "notes.json").write_text("mine")
    assert dict(reopened(store)) == {1: "one"}
    store.clear()
    assert [path.name for path in store.directory.iterdir()] == ["notes.json"]


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({**CONDITIONS, "the weights": "abd"}, ["the weights"]),
        ({**CONDITIONS, "new": None, "newer": 1}, ["newer"]),
        ({"the weights": "abc"}, ["INPUT.MIN_SIZE_TEST", "sizes"]),
    ],
)
def test_other_conditions_drop_all(store: ResultStore, changed: Any, names: list[str]) -> None:
    store.update({1: "one", 2: "two"})
    again = ResultStore(store.directory)
    assert again.open(changed) == (2, names)
    assert dict(again) == {}
    assert again.open(changed) == (0, [])


def test_results_without_conditions_are_dropped(store: ResultStore) -> None:
    store[1] = "one"
    (store.directory / "fingerprint.json").write_text('{"the wei')
    assert ResultStore(store.directory).open(CONDITIONS)[0] == 1


def test_damaged_result_says_what_to_do(store: ResultStore) -> None:
    store[1] = "one"
    (store.directory / "1.json").write_text('"on')
    with pytest.raises(DataError, match=r"videos/1\.json .*; remove it, and the same command"):
        store[1]


def test_full_disk_is_told_and_loses_nothing(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store[1] = "one"

    def full(path: Path, write: Any, *, durable: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vidseg.evaluation.result_store.write_atomically", full)
    with pytest.raises(
        ResourceError, match=r"videos/2\.json: No space left .*same command"
    ) as caught:
        store[2] = "two"
    assert caught.value.exit_code == 1
    assert dict(reopened(store)) == {1: "one"}


class Adding(Evaluator):
    """Sums numbers up; remembers in which order it saw the videos."""

    @classmethod
    def from_config(cls, cfg: Any, metadata: Any, output_dir: Path) -> dict[str, Any]:
        return {}

    def encode(self, sample: dict[str, Any], prediction: int) -> dict[str, int]:
        return {"number": prediction}

    def score(self, results: Any) -> dict[str, dict[str, float]]:
        self.order = list(results)
        assert all(key in results for key in self.order)
        return {"sum": {"of": sum(result["number"] for result in results.values())}}


def test_an_evaluator_has_two_duties(store: ResultStore) -> None:
    evaluator = Adding()
    evaluator.reset()
    evaluator.results = store
    samples = [{"video_id": 12}, {"video_id": 3}, {"video_id": 12}]
    evaluator.process(samples, [100, 20, 100])
    assert evaluator.evaluate() == {"sum": {"of": 120}}
    assert evaluator.order == [3, 12]
    evaluator.reset()
    assert evaluator.evaluate() == {"sum": {"of": 0}}


RANK_PROGRAM = """
import json, sys
from pathlib import Path
import torch.distributed as dist
from tests.evaluation.test_result_store import CONDITIONS, Adding
from vidseg.evaluation import ResultStore
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
evaluator = Adding()
evaluator.reset()
evaluator.results = ResultStore(folder / f"disk_of_{rank}")
evaluator.results.open(CONDITIONS)
for video in range(rank, 120, 3):
    if not rank or video > 60:  # of ranks above 0, the others stand on the disk already
        evaluator.process([{"video_id": video}], [video])
print(json.dumps([evaluator.evaluate()["sum"]["of"], len(evaluator.results)]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_without_a_common_disk_send_what_is_missing(tmp_path: Path) -> None:
    for rank in (1, 2):
        earlier = ResultStore(tmp_path / f"disk_of_{rank}")
        earlier.open(CONDITIONS)
        # Video 1 and 2 are on both disks.
        earlier.update({video: {"number": video} for video in range(1, 61) if video % 3})
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_PROGRAM, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in range(3)
    ]
    outputs = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    assert [number for number, _ in outputs] == [sum(range(120))] * 3
    assert outputs[0][1] == 120
    assert len(list((tmp_path / "disk_of_0").glob("[0-9]*.json"))) == 120
