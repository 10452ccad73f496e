"""Evaluations that are stopped, meet damaged videos, or are shared by ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import make_dataset, write_config
from vidseg.data import DatasetCatalog
from vidseg.engine.chain import plan_stages
from vidseg.engine.run_dir import locked
from vidseg.engine.setup import run_stages
from vidseg.errors import DataError, ResourceError, UserError

pytestmark = pytest.mark.usefixtures("fresh_plugins")

PLUGIN = str(Path(__file__).with_name("watched_plugin.py"))
NUM_VIDEOS = 6
RESULTS = "inference/data_instances"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with trained weights in ``output/toy``."""
    dataset = make_dataset(tmp_path / "data", num_videos=NUM_VIDEOS, num_frames=5)
    monkeypatch.setenv("WATCH_LOG", str(tmp_path / "seen.txt"))
    config = write_config(tmp_path, dataset)
    config.write_text(config.read_text().replace("ToySegmenter", "WatchedSegmenter"))
    assert run(config, "DATASETS.TEST", "()") == 0
    return config


def run(config: Path, *overrides: Any, **options: Any) -> int:
    stages = plan_stages(str(config), [str(word) for word in overrides], [PLUGIN])
    return run_stages(stages, plugins=[PLUGIN], **options)


def evaluate(config: Path, name: str, *overrides: Any) -> Path:
    """Evaluates the trained weights into a folder of its own, which is returned."""
    output = config.parent / name
    weights = config.parent / "output" / "toy" / "model_final.pth"
    common = ("MODEL.WEIGHTS", weights, "OUTPUT_DIR", output)
    assert run(config, *common, *overrides, eval_only=True) == 0
    return output


def die_in(config: Path, name: str, number: int, *overrides: Any) -> Path:
    """Evaluates in another process, which dies by SIGKILL in the middle of a video."""
    child = os.fork()
    if child == 0:
        try:
            os.environ["WATCH_KILL"] = str(number)
            evaluate(config, name, *overrides)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return config.parent / name


def seen(config: Path) -> list[int]:
    """Gives the videos that the model was run on since the last call."""
    path = config.parent / "seen.txt"
    videos = [int(line) for line in path.read_text().split()] if path.exists() else []
    path.unlink(missing_ok=True)
    return videos


def outcome(output: Path) -> dict[str, Any]:
    folder = output / RESULTS
    return {name: (folder / name).read_text() for name in ("results.json", "metrics.json")}


def log_of(output: Path) -> str:
    return (output / "log.txt").read_text()


def break_frame(config: Path, video: int, frame: int, content: bytes | None) -> None:
    path = config.parent / "data" / "JPEGImages" / str(video) / f"{frame}.png"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def test_killed_evaluation_goes_on(config: Path) -> None:
    whole = evaluate(config, "whole")
    assert seen(config)[:NUM_VIDEOS] == [1, 2, 3, 4, 5, 6]
    assert not (whole / RESULTS / "videos").exists()
    parts = die_in(config, "parts", 4)
    assert seen(config) == [1, 2, 3]
    assert not (parts / RESULTS / "metrics.json").exists()
    # Killed again, at a later video.
    die_in(config, "parts", 3, "DATALOADER.NUM_WORKERS", 1)
    assert seen(config) == [4, 5]
    evaluate(config, "parts")
    assert seen(config) == [6]
    assert "going on with an evaluation that was not completed: 5 videos are" in log_of(parts)
    assert outcome(parts) == outcome(whole)
    assert json.loads(outcome(parts)["metrics.json"])["segm/AR1"] is not None


def test_a_stop_signal_ends_it_between_two_videos(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidseg.evaluation import YTVISEvaluator

    original = YTVISEvaluator.encode

    def encode(self: Any, sample: Any, prediction: Any) -> Any:
        if sample["video_id"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, sample, prediction)

    with monkeypatch.context() as patch:
        patch.setattr(YTVISEvaluator, "encode", encode)
        assert run(config, eval_only=True) == 128 + signal.SIGTERM
    assert "evaluation on " in (text := log_of(config.parent / "output" / "toy"))
    assert "the same command goes on" in text
    seen(config)
    assert run(config, eval_only=True) == 0
    assert seen(config) == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["INPUT.MIN_SIZE_TEST", 12], "changed: INPUT.MIN_SIZE_TEST"),
        (["MODEL.WEIGHTS", "other.pth"], "changed: the weights"),
        (["DATASETS.TEST", "edited"], "changed: the data set"),
    ],
)
def test_other_conditions_start_anew(config: Path, overrides: list[Any], named: str) -> None:
    folder = config.parent
    if overrides[0] == "MODEL.WEIGHTS":
        assert run(config, "SOLVER.MAX_ITER", 9, "OUTPUT_DIR", folder / "o", resume=True) == 0
        overrides = ["MODEL.WEIGHTS", folder / "o" / "model_final.pth"]
    output = die_in(config, "parts", 4)
    if overrides[0] == "DATASETS.TEST":
        file = folder / "data" / "instances.json"
        content = json.loads(file.read_text())
        content["annotations"][0]["iscrowd"] = 1
        file.write_text(json.dumps(content))
        overrides = []
    seen(config)
    evaluate(config, "parts", *overrides)
    assert seen(config) == [1, 2, 3, 4, 5, 6]
    assert "starting anew; 3 videos of an evaluation that was not completed" in log_of(output)
    assert named in log_of(output)


def test_what_changes_no_prediction_does_not_start_anew(config: Path) -> None:
    memory = "MODEL.REFINER.MEMORY_MB"
    die_in(config, "parts", 4, memory, 64)
    seen(config)
    harmless = (
        memory,
        5,
        "SEED",
        7,
        "SOLVER.BASE_LR",
        1,
        "TEST.KEEP_BEST",
        4,
        "DATALOADER.NUM_WORKERS",
        2,
    )
    evaluate(config, "parts", *harmless, "MODEL.MASK_FORMER.TEST.WINDOW_SIZE", 1)
    assert seen(config) == [4, 5, 6]


def test_changed_code_starts_anew(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidseg.engine import fingerprint

    output = die_in(config, "parts", 4)
    monkeypatch.setattr(fingerprint, "_code_digest", lambda model: "edited")
    evaluate(config, "parts")
    assert "changed: the code" in log_of(output)


@pytest.mark.parametrize("content", [None, b"rubbish"])
def test_damaged_videos_are_left_out_and_listed(
    config: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outcome(evaluate(config, "whole"))
    monkeypatch.setenv("WATCH_REFUSE", "5")
    path = config.parent / "data" / "JPEGImages" / "2" / "3.png"
    sound = path.read_bytes()
    break_frame(config, 2, 3, content)
    seen(config)
    output = config.parent / "out"
    with pytest.raises(DataError, match=r"^damaged videos .* 2 of .*\.json \(see .*damaged\.json"):
        evaluate(config, "out")
    assert set(seen(config)) - {2} == {1, 3, 4, 6}
    damaged = json.loads((output / RESULTS / "damaged.json").read_text())
    assert list(damaged) == ["2", "5"]
    assert "3.png" in damaged["2"]
    assert damaged["5"] == "video 5 is too strange"
    metrics = json.loads((output / RESULTS / "metrics.json").read_text())
    assert metrics["damaged/videos"] == 2
    assert "segm/AP" in metrics
    predicted = {one["video_id"] for one in json.loads(outcome(output)["results.json"])}
    assert predicted == {1, 3, 4, 6}
    assert "video 2 is left out: " in log_of(output)
    # Repaired, they alone are run.
    monkeypatch.delenv("WATCH_REFUSE")
    path.write_bytes(sound)
    evaluate(config, "out")
    assert seen(config) == [2, 5]
    assert outcome(output) == whole
    assert not (output / RESULTS / "damaged.json").exists()
    assert not (output / RESULTS / "videos").exists()


def test_a_full_disk_is_no_damage(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidseg.evaluation import YTVISEvaluator

    original = YTVISEvaluator.encode

    def encode(self: Any, sample: Any, prediction: Any) -> Any:
        if sample["video_id"] == 3:
            raise ResourceError("no room")
        return original(self, sample, prediction)

    monkeypatch.setattr(YTVISEvaluator, "encode", encode)
    with pytest.raises(ResourceError):
        evaluate(config, "out")
    seen(config)
    monkeypatch.setattr(YTVISEvaluator, "encode", original)
    output = evaluate(config, "out")
    assert seen(config) == [3, 4, 5, 6]
    assert "damaged/videos" not in json.loads(outcome(output)["metrics.json"])


def test_no_sound_video_is_refused_at_once(config: Path) -> None:
    for video in range(1, NUM_VIDEOS + 1):
        break_frame(config, video, 0, None)
    with pytest.raises(DataError, match=r"frames of .* are missing: there is no .*1/0\.png"):
        evaluate(config, "out")


@pytest.mark.parametrize("period", [0, 4])
def test_training_survives_damaged_test_videos(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, period: int
) -> None:
    test_set = make_dataset(tmp_path / "test", num_videos=3)
    lost = tmp_path / "test" / "JPEGImages" / "2" / "1.png"
    sound = lost.read_bytes()
    lost.unlink()
    output = tmp_path / "out"
    options = ("DATASETS.TEST", f"('{test_set}',)", "OUTPUT_DIR", output)
    options = (*options, "TEST.EVAL_PERIOD", period, "SOLVER.MAX_ITER", 6)
    with pytest.raises(DataError, match=r"1 of .*instances\.json .*the same command runs"):
        run(config, *options)
    assert (output / "model_final.pth").is_file()
    stored = json.loads((output / "final_metrics.json").read_text())["metrics"][str(test_set)]
    assert stored["damaged/videos"] == 1
    assert "1 of them damaged: the frames of" in log_of(output)
    lost.write_bytes(sound)
    seen(config)
    assert run(config, *options) == 0
    assert seen(config) == [2, 1]  # the first for the overlay
    stored = json.loads((output / "final_metrics.json").read_text())["metrics"][str(test_set)]
    assert "damaged/videos" not in stored


def test_missing_frames_of_a_training_set_are_refused(config: Path, tmp_path: Path) -> None:
    break_frame(config, 3, 2, None)
    with pytest.raises(DataError, match=r"frames of .* are missing: there is no .*3/2\.png"):
        run(config, "OUTPUT_DIR", tmp_path / "new")


def test_an_evaluator_of_another_kind_goes_on_too(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = config.parent / "data" / "instances.json"
    name = DatasetCatalog.resolve(str(dataset))
    entry = DatasetCatalog._entry(name)
    monkeypatch.setitem(DatasetCatalog._entries, "bright", entry)
    from dataclasses import replace

    monkeypatch.setattr(entry, "metadata", replace(entry.metadata, evaluator="brightness"))
    test = ("DATASETS.TEST", "('bright',)")
    whole = evaluate(config, "whole", *test) / "inference" / "bright" / "light.txt"
    parts = die_in(config, "parts", 4, *test) / "inference" / "bright" / "light.txt"
    seen(config)
    evaluate(config, "parts", *test)
    assert seen(config) == [4, 5, 6]
    assert parts.read_text() == whole.read_text()
    assert float(whole.read_text()) > 0.03


def test_two_evaluations_of_one_data_set_in_one_folder(config: Path) -> None:
    held = config.parent / "out" / RESULTS
    child = os.fork()
    if child == 0:
        with locked(held):
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        with pytest.raises(UserError, match=f"process {child} is already running in .*instances"):
            evaluate(config, "out")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.slow
def test_two_ranks_equal_one_and_go_on_after_one_was_killed(config: Path) -> None:
    whole = outcome(evaluate(config, "whole"))
    seen(config)

    def torchrun(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
        checkout = Path(__file__).parents[2]
        weights = config.parent / "output" / "toy" / "model_final.pth"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", "2", str(checkout / "tools" / "train_net.py")]
        command += ["--config-file", str(config), "--plugin", PLUGIN, "--eval-only"]
        command += ["MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(config.parent / name)]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )

    result = torchrun("two")
    assert result.returncode == 0, result.stderr
    assert sorted(seen(config)) == [1, 2, 3, 4, 5, 6]
    assert outcome(config.parent / "two") == whole
    assert torchrun("parts", WATCH_KILL="3").returncode != 0
    before = seen(config)
    assert 2 <= len(before) <= 4
    # Another number of ranks.
    evaluate(config, "parts")
    assert sorted(before + seen(config)) == [1, 2, 3, 4, 5, 6]
    assert outcome(config.parent / "parts") == whole
    # A damaged video of any rank is told by the first one.
    break_frame(config, 1, 0, b"rubbish")
    break_frame(config, 2, 0, None)
    result = torchrun("damaged")
    assert result.returncode == 1
    assert result.stderr.count("damaged videos count as videos without predictions: 2 of") == 1
    damaged = config.parent / "damaged" / RESULTS / "damaged.json"
    assert list(json.loads(damaged.read_text())) == ["1", "2"]
