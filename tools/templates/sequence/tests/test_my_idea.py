"""MyIdea: data, model, evaluator, and that they fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import vidseg.projects.my_idea as project
from vidseg.config import load_config
from vidseg.data import Records
from vidseg.data.features import INDEX_NAME, load_feature_index
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_model
from vidseg.projects.my_idea.data_set import CLASSES, generate_split
from vidseg.projects.my_idea.evaluator import MyIdeaEvaluator
from vidseg.projects.my_idea.mapper import MyIdeaMapper
from vidseg.projects.my_idea.model import MyIdea

CONFIG = Path(project.__file__).with_name("my_idea.yaml")


def make_samples(num_classes: int = 4) -> list[dict[str, Any]]:
    lengths = (7, 12)
    return [
        {
            "video_id": str(length),
            "features": torch.randn(length, 16),
            "labels": torch.randint(num_classes, (length,)),
        }
        for length in lengths
    ]


def test_generated_documents_are_always_the_same(tmp_path: Path) -> None:
    for name in ("once", "again"):
        generate_split(tmp_path / name, "val")
    once, again = (load_feature_index(tmp_path / name / INDEX_NAME) for name in ("once", "again"))
    assert [record["labels"] for record in once] == [record["labels"] for record in again]
    assert {label for record in once for label in record["labels"]} == set(range(len(CLASSES)))
    for first, second in zip(once, again, strict=True):
        assert (
            Path(first["file_names"][0]).read_bytes() == Path(second["file_names"][0]).read_bytes()
        )


def test_documents_without_labels_are_not_trained_on() -> None:
    records = Records([{"video_id": "a", "labels": [0]}, {"video_id": "b"}])
    mapper = MyIdeaMapper()
    with pytest.raises(DataError, match="mine: document 'b' has no labels"):
        mapper.select(records, "mine", drop_empty=True)
    assert len(mapper.select(Records(records[:1]), "mine", drop_empty=True)) == 1


def test_neighbours_in_the_batch_have_no_say() -> None:
    model: Any = build_model(load_config(CONFIG, ["MODEL.DEVICE", "cpu"])).eval()
    short, long = make_samples()
    with torch.no_grad():
        together, alone = model([short, long])[0], model([short])[0]
    assert together.shape == (7, 4)
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together.sum(1), torch.ones(7))


def test_it_learns_what_it_is_shown() -> None:
    model = MyIdea(input_dim=16, num_classes=4, width=16, depth=2)
    samples = make_samples()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(120):
        optimizer.zero_grad()
        loss = sum(model(samples).values())
        loss.backward()
        optimizer.step()
    for sample, prediction in zip(samples, model.eval()(samples), strict=True):
        assert torch.equal(prediction.argmax(-1), sample["labels"])


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"MY_IDEA\.INPUT_DIM is 0; set 1"):
        MyIdea(input_dim=0, num_classes=4)


def test_segments_are_written(tmp_path: Path) -> None:
    model = MyIdea(input_dim=16, num_classes=3)
    prediction = torch.eye(3)[[0, 0, 2, 1, 1, 1]]
    assert model.write_prediction(tmp_path / "shown", {}, prediction) == "6 frames, 3 segments"
    lines = (tmp_path / "shown" / "segments.csv").read_text().splitlines()
    assert lines == ["first_frame,last_frame,class", "0,1,0", "2,2,2", "3,5,1"]


def test_accuracy_counts_frames(tmp_path: Path) -> None:
    evaluator = MyIdeaEvaluator(tmp_path, ["rest", "walk", "run"])
    samples = [
        {"video_id": "a", "labels": torch.tensor([0, 0, 1])},
        {"video_id": "b", "labels": torch.tensor([1])},
    ]
    evaluator.process(samples, [torch.eye(3)[[0, 2, 1]], torch.eye(3)[[1]]])
    scores = evaluator.evaluate()["frames"]
    assert scores == {"accuracy": 75.0, "accuracy-rest": 50.0, "accuracy-walk": 100.0}
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written == {"a": [0, 2, 1], "b": [1]}
    flat = json.loads((tmp_path / "metrics.json").read_text())
    assert flat == {f"frames/{name}": value for name, value in scores.items()}
    with pytest.raises(DataError, match="document 'c' has no labels"):
        evaluator.encode({"video_id": "c"}, torch.eye(3))
