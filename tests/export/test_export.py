"""Exported graphs against the model: number by number, and video by video."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vidseg import VideoPredictor
from vidseg.export import ExportRequest, export_model
from vidseg.modeling.meta_arch import ExportOptions, FrameSize
from vidseg.structures import VideoInstances

from .conftest import CHECKOUT, CONFIG, OVERRIDES

TOLERANCE = {".pt2": 1e-5, ".onnx": 1e-4}


def predictor_of(weights: Path, *overrides: str) -> VideoPredictor:
    return VideoPredictor.from_config(CONFIG, weights, [*OVERRIDES, *overrides])


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("onnxruntime", reason="ONNX: pip install 'vidseg[export]'")
    pytest.importorskip("onnxscript", reason="ONNX: pip install 'vidseg[export]'")
    folder = tmp_path_factory.mktemp("exported")
    request = ExportRequest(("torch", "onnx"), options=ExportOptions(max_tracks=30))
    return {"folder": folder, "files": list(export_model(predictor_of(weights), folder, request))}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("onnxruntime", reason="ONNX: pip install 'vidseg[export]'")
    monkeypatch.syspath_prepend(CHECKOUT / "examples")
    sys.modules.pop("run_exported", None)
    import run_exported

    return run_exported


def assert_same_tracks(windows: list[VideoInstances], found: list[list[Any]], names: Any) -> None:
    """Compares ``(id, label, score, mask)`` of every frame."""
    assert len(windows) == len(found)
    for window, tracks in zip(windows, found, strict=True):
        assert [track[0] for track in tracks] == window.track_ids.tolist()
        assert [track[1] for track in tracks] == [names(x) for x in window.labels.tolist()]
        scores = np.array([track[2] for track in tracks], dtype=np.float32)
        np.testing.assert_allclose(scores, window.scores.numpy(), atol=1e-5)
        for track, mask in zip(tracks, window.masks_tensor()[:, 0].numpy(), strict=True):
            assert (track[3] != mask).sum() <= 2, "pixels"
    ids = {track[0] for tracks in found for track in tracks}
    assert len(ids) > len({track[0] for track in found[-1]}) > 0, "tracks come and go"


@pytest.mark.slow
def test_graphs_compute_what_the_model_does(exported: dict[str, Any]) -> None:
    names = [f"{part}{suffix}" for part in ("segmenter", "tracker") for suffix in TOLERANCE]
    assert [file.path.name for file in exported["files"]] == names
    assert sorted(path.name for path in exported["folder"].iterdir()) == sorted(
        [*names, "export.json"]
    )
    for file in exported["files"]:
        assert [case.size for case in file.comparisons] == [(2, 64, 85), (1, 138, 40)]
        for case in file.comparisons:
            assert not case.differing
            assert case.relative <= TOLERANCE[file.path.suffix], file
            assert case.relative <= case.largest


def test_the_tracker_is_compared_with_tracks_whatever_its_weights(weights: Path) -> None:
    model = predictor_of(weights).model
    for classifier in (model.sem_seg_head.predictor.class_embed, model.tracker.class_embed):
        torch.nn.init.zeros_(classifier.weight)
        classifier.bias.data = torch.tensor([-9.0] * (len(classifier.bias) - 1) + [9.0])
    tracker = model.export_parts(ExportOptions(max_tracks=6))[1]
    inputs = tracker.make_inputs(FrameSize(1, 64, 85))
    assert (inputs["ids"] >= 0).any()
    found = dict(zip(tracker.output_names, tracker.module(*inputs.values()), strict=True))
    assert found["new_pixels"].any()


@pytest.mark.slow
def test_the_example_tracks_as_the_predictor_does(
    exported: dict[str, Any], weights: Path, video: list[np.ndarray], example: ModuleType
) -> None:
    predictor = predictor_of(weights, "MODEL.MASK_FORMER.TEST.WINDOW_SIZE", "1")
    tracker = example.ExportedTracker(exported["folder"])
    found = [tracker.step(Image.fromarray(image)) for image in video]
    listed = [[(t.id, t.label, t.score, t.mask) for t in tracks] for tracks in found]
    assert_same_tracks(list(predictor.stream(video)), listed, predictor.class_name)


@pytest.mark.slow
def test_the_example_writes_label_maps(
    exported: dict[str, Any],
    video: list[np.ndarray],
    example: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(video[:3]):
        Image.fromarray(image).save(tmp_path / "frames" / f"{number}.png")
    example.CONFIDENCE = 0.1
    example.main(str(exported["folder"]), str(tmp_path / "frames"), str(tmp_path / "found"))
    lines = (tmp_path / "found" / "tracks.jsonl").read_text().splitlines()
    assert "3 label maps" in capsys.readouterr().out
    assert [json.loads(line)["frame"] for line in lines] == ["0.png", "1.png", "2.png"]
    for number, line in enumerate(lines):
        labels = np.asarray(Image.open(tmp_path / "found" / f"{number}.png"))
        ids = {track["id"] for track in json.loads(line)["tracks"]}
        assert labels.shape == video[0].shape[:2]
        assert ids
        assert set(np.unique(labels).tolist()) <= {0, *(track + 1 for track in ids)}


def test_the_example_says_what_it_needs(example: ModuleType, tmp_path: Path) -> None:
    parts = [{"name": "segmenter", "files": {"onnx": "segmenter.onnx"}}]
    (tmp_path / "export.json").write_text(json.dumps({"parts": parts}))
    with pytest.raises(SystemExit, match="holds no tracker as ONNX; export an online model"):
        example.ExportedTracker(tmp_path)


@pytest.mark.slow
def test_torch_programs_track_as_the_predictor_does(
    exported: dict[str, Any], weights: Path, video: list[np.ndarray], example: ModuleType
) -> None:
    predictor = predictor_of(weights, "MODEL.MASK_FORMER.TEST.WINDOW_SIZE", "1")
    segment = torch.export.load(exported["folder"] / "segmenter.pt2").module()
    track = torch.export.load(exported["folder"] / "tracker.pt2").module()
    described = json.loads((exported["folder"] / "export.json").read_text())
    tracker = described["parts"][1]
    dtypes = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64}
    state = [
        torch.full(entry["shape"], entry["first"], dtype=dtypes[entry["dtype"]])
        for entry in tracker["inputs"]
        if "first" in entry
    ]
    names = [entry["name"] for entry in tracker["outputs"]]
    found = []
    for image in video:
        small = np.asarray(Image.fromarray(image).resize((96, 61), Image.Resampling.BILINEAR))
        with torch.no_grad():
            segmented = segment(torch.from_numpy(small.copy()).permute(2, 0, 1)[None].contiguous())
            outputs = track(*(value[0] for value in segmented), *state)
        state = list(outputs[-len(state) :])
        told = {name: value.numpy() for name, value in zip(names, outputs, strict=True)}
        ids = told["new_ids"][told["new_ids"] >= 0]
        pairs = example.best_pairs(told["scores"][: len(ids)], told["quality"][: len(ids)], tracker)
        found.append(
            [
                (
                    int(ids[row]),
                    described["classes"][label],
                    score,
                    example.full_mask(told["mask_logits"][row], (61, 96), image.shape[:2]),
                )
                for row, label, score in pairs
            ]
        )
    assert_same_tracks(list(predictor.stream(video)), found, predictor.class_name)


@pytest.mark.slow
def test_one_size_and_float_frames(weights: Path, tmp_path: Path) -> None:
    request = ExportRequest(
        ("torch",), FrameSize(1, 50, 70), ExportOptions(torch.float32, max_tracks=5)
    )
    files = list(export_model(predictor_of(weights), tmp_path, request))
    assert [case.size for file in files for case in file.comparisons] == [(1, 50, 70)] * 2
    assert all(case.largest <= 1e-5 for file in files for case in file.comparisons)
    described = json.loads((tmp_path / "export.json").read_text())
    segmenter, tracker = described["parts"]
    assert segmenter["inputs"][0] == {
        "name": "frames",
        "dtype": "float32",
        "shape": [1, 3, 50, 70],
    }
    assert {"name": "new_ids", "dtype": "int64", "shape": [5]} in tracker["outputs"]
    assert tracker["least_sizes"] == {}
    program = torch.export.load(tmp_path / "segmenter.pt2").module()
    with pytest.raises((AssertionError, RuntimeError), match="Guard failed"):
        program(torch.zeros(1, 3, 60, 70))


@pytest.mark.slow
def test_the_description_says_all(exported: dict[str, Any]) -> None:
    described = json.loads((exported["folder"] / "export.json").read_text())
    assert described["classes"] == ["disc", "square", "triangle", "star", "cross"]
    assert described["resize"]["min_size"] == 64
    segmenter, tracker = described["parts"]
    assert segmenter["files"] == {"torch": "segmenter.pt2", "onnx": "segmenter.onnx"}
    assert segmenter["inputs"][0]["shape"] == ["num_frames", 3, "height", "width"]
    assert segmenter["least_sizes"] == {"num_frames": 1, "height": 33, "width": 33}
    assert segmenter["pixel_mean"] == [123.675, 116.28, 103.53]
    masks = next(entry for entry in segmenter["outputs"] if entry["name"] == "masks")
    assert masks["shape"] == [None, 12, None, None]
    state = {entry["name"]: entry for entry in tracker["inputs"] if "first" in entry}
    assert state["ids"] == {
        "name": "ids",
        "dtype": "int64",
        "shape": [30],
        "first": -1,
        "next": "new_ids",
    }
    outputs = {entry["name"]: entry for entry in tracker["outputs"]}
    for entry in state.values():
        assert outputs[entry["next"]]["dtype"] == entry["dtype"]
        assert outputs[entry["next"]]["shape"] == entry["shape"]
    assert (tracker["max_num"], tracker["mask_quality"]) == (10, True)


def test_nothing_is_left_of_an_export_that_fails(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "segmenter.pt2").write_text("older")

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    record: Callable[..., Any] = lambda *args, **options: None  # noqa: E731
    monkeypatch.setattr("vidseg.export.export.record", record)
    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(OSError, match="No space"):
        list(export_model(predictor_of(weights), tmp_path, ExportRequest()))
    assert [path.name for path in tmp_path.iterdir()] == ["segmenter.pt2"]
    assert (tmp_path / "segmenter.pt2").read_text() == "older"
