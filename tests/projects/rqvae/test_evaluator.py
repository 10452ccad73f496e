"""The evaluator over a split: sums instead of means, files, and documents that are odd."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidseg.errors import UserError
from vidseg.evaluation import ResultStore
from vidseg.evaluation.base import EVALUATOR_REGISTRY
from vidseg.projects.rqvae.documents import DocumentCodes, DocumentPrediction
from vidseg.projects.rqvae.evaluator import DocumentCodesEvaluator
from vidseg.projects.rqvae.retrieval import collect_statistics, describe_document
from vidseg.projects.rqvae.split_results import pack, unpack
from vidseg.projects.rqvae.windows import num_windows

D, Q, K, V, W, S = 6, 3, 16, 8, 5, 2
BOOKS = torch.randn(Q, K, V, generator=torch.Generator().manual_seed(5))


def evaluator(folder: Path) -> DocumentCodesEvaluator:
    return DocumentCodesEvaluator(
        folder, codebook_size=K, window=W, stride=S, mode="same", frame_rate=50.0
    )


def document(
    name: str, topic: int | None, num_frames: int = 40, *, seed: int = 0, masked: bool = False
) -> tuple[dict[str, Any], DocumentPrediction]:
    """Documents of a topic draw their codes from the same few."""
    generator = torch.Generator().manual_seed(seed)
    num = num_windows(num_frames, W, S)
    codes = torch.randint(0, 4, (num, Q), generator=generator) + 4 * (topic or 0)
    window_mask = torch.ones(num, dtype=torch.bool)
    frame_mask = torch.ones(num_frames, dtype=torch.bool)
    if masked:
        window_mask[:], frame_mask[:], codes[:] = False, False, -1
    x = torch.randn(num_frames, D, generator=generator) * frame_mask[:, None]
    scale = torch.linspace(1.0, 0.5, Q)
    errors = torch.stack([0.1 * x.square().sum(1), *(x.square().sum(1) * s for s in scale)])
    tokens = DocumentCodes(codes, window_mask, num_frames, {"id": name})
    statistics = collect_statistics([(codes, window_mask)], BOOKS)
    vectors = describe_document(
        tokens, window=W, stride=S, mode="same", codebooks=BOOKS, statistics=statistics
    )
    vectors["raw"] = F.normalize(x.sum(0), dim=0)
    prediction = DocumentPrediction(
        tokens=tokens,
        num_frames=int(frame_mask.sum()),
        input_dim=D,
        frame_errors=errors,
        frame_energy=x.square().sum(1),
        feature_sum=x.double().sum(0),
        latent_error=(1.0, 10.0),
        frame_mask=frame_mask,
        windows=torch.zeros(num, V),
        vectors=vectors,
    )
    sample: dict[str, Any] = {"video_id": name}
    return (sample if topic is None else {**sample, "topic": topic}), prediction


def evaluate(folder: Path, *documents: tuple[dict[str, Any], DocumentPrediction]) -> Any:
    found = evaluator(folder)
    found.process(*zip(*documents, strict=True))
    return found.evaluate()


@pytest.fixture
def split() -> list[tuple[dict[str, Any], DocumentPrediction]]:
    return [
        document(f"d{n}", n % 3 if n < 9 else 3, num_frames=20 + 7 * n, seed=n) for n in range(10)
    ]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.zeros(0, 5, dtype=torch.int32),
        torch.tensor([True, False]),
        torch.randn(2, dtype=torch.float64),
    ],
)
def test_arrays_survive_json(tensor: torch.Tensor) -> None:
    back = unpack(json.loads(json.dumps(pack(tensor))))
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)


def test_sparse_vectors_survive_json() -> None:
    vector = torch.tensor([0.0, 2.0, 0.0, -1.0])
    back = unpack(json.loads(json.dumps(pack(vector.to_sparse()))))
    assert back.is_sparse
    assert torch.equal(back.to_dense(), vector)


def test_is_found_by_name() -> None:
    assert EVALUATOR_REGISTRY.get("document_codes") is DocumentCodesEvaluator


def test_what_is_kept_is_plain_json_and_can_be_continued(tmp_path: Path, split: Any) -> None:
    whole = evaluate(tmp_path / "whole", *split)
    store = ResultStore(tmp_path / "store")
    store.open({"weights": 1})
    for one in split:  # each in a process of its own, as after a stop
        part = evaluator(tmp_path / "parts")
        part.results = store
        part.process([one[0]], [one[1]])
    continued = part.evaluate()
    assert continued.keys() == whole.keys()
    for group, values in whole.items():
        assert continued[group] == pytest.approx(values, nan_ok=True)


def test_figures_are_of_sums_and_not_of_means(tmp_path: Path, split: Any) -> None:
    metrics = evaluate(tmp_path, *split)
    predictions = [prediction for _, prediction in split]
    energy = sum(float(p.frame_energy.double().sum()) for p in predictions)
    total = sum(p.feature_sum for p in predictions)
    frames = sum(p.num_frames for p in predictions)
    centred = energy - float(total.square().sum()) / frames
    reconstruction = metrics["reconstruction"]
    for level, scale in enumerate((1.0, 0.75, 0.5), start=1):
        expected = 10 * math.log10(centred / (scale * energy))
        assert reconstruction[f"SNR_levels_{level}"] == pytest.approx(expected, abs=1e-4)
    assert reconstruction["SNR"] == reconstruction["SNR_levels_3"]
    assert reconstruction["quantization_loss"] == pytest.approx(10 * math.log10(5), abs=1e-4)
    assert reconstruction["SNR_latent"] == pytest.approx(10)
    windows = sum(len(p.tokens.codes) for p in predictions)
    assert metrics["rate"]["frame_compression"] == pytest.approx(frames / windows)
    assert metrics["rate"]["codes_per_10s"] == pytest.approx(windows * Q * 10 / (frames / 50))
    assert metrics["codes"]["num_vectors"] == windows
    codes = torch.cat([p.tokens.codes for p in predictions])
    for level in range(Q):
        used = len(codes[:, level].unique()) / K
        assert metrics["codes"][f"level_{level + 1}/utilization"] == used
    assert metrics["codes"]["dead_codes"] == sum(K - len(column.unique()) for column in codes.T)


def test_topics_find_each_other_and_the_lonely_are_counted(tmp_path: Path, split: Any) -> None:
    found = evaluate(tmp_path, *split)["retrieval"]
    assert (found["num_queries"], found["num_skipped"]) == (9, 1)
    # Topics share no code, so the bags of two topics are orthogonal.
    assert found["A/bag/mAP"] == found["A/bag/recall@1"] == found["A/bag/mAP_low"] == 1
    assert found["A/bag/recall@1"] > found["chance/recall@1"] == pytest.approx(2 / 9)
    assert found["raw/mAP_low"] <= found["raw/mAP"] <= found["raw/mAP_high"] < 1


def test_halves_of_documents_need_no_topics(tmp_path: Path) -> None:
    documents = [document(f"d{n}", None, seed=n) for n in range(4)]
    documents.append(document("short", None, num_frames=3))
    metrics = evaluate(tmp_path, *documents)
    assert "retrieval" not in metrics
    found = metrics["halves"]
    assert (found["num_queries"], found["num_skipped"]) == (8, 1)
    assert found["chance/recall@1"] == pytest.approx(1 / 7)
    assert 0 < found["A/maxsim/MRR"] <= 1


def test_files(tmp_path: Path, split: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        metrics = evaluate(tmp_path, *split)
    flat = json.loads((tmp_path / "metrics.json").read_text())
    assert flat["retrieval/A/maxsim/recall@1"] == metrics["retrieval"]["A/maxsim/recall@1"]
    assert set(DocumentCodesEvaluator.headline) - set(flat) == {"retrieval/C/recall@1"}
    report = (tmp_path / "report.md").read_text()
    assert "## Windows by their index" in report
    assert "## Codebooks" in caplog.text
    assert "## Windows by their index" not in caplog.text
    for word in ("1-(1-1/K)^n", "limited by the data", "A/maxsim", "frame compression", "chance"):
        assert word in report
    levels = (tmp_path / "per_level.csv").read_text().splitlines()
    assert levels[0].startswith("level,num_vectors,utilization,expected")
    assert len(levels) == 1 + Q
    rows = np.genfromtxt(tmp_path / "per_window.csv", delimiter=",", names=True)
    longest = num_windows(20 + 7 * 9, W, S)
    assert len(rows) == longest * Q
    assert rows["num_vectors"][0] == 10
    assert rows["num_vectors"][-1] == 1


def test_errors_belong_to_the_nearest_window(tmp_path: Path) -> None:
    sample, prediction = document("d", None)
    prediction.frame_errors[-1] = 0
    prediction.frame_errors[-1, 0] = D * 3.0
    prediction.frame_errors[-1, -1] = D * 4.0
    evaluate(tmp_path, (sample, prediction))
    rows = np.genfromtxt(tmp_path / "per_window.csv", delimiter=",", names=True)
    error = rows["MSE"][::Q]
    assert len(error) == 20
    assert error[0] == pytest.approx(3 / 2)  # windows every two frames: each has two of its own
    assert error[-1] == pytest.approx(4 / 2)
    assert not error[1:-1].any()


def test_masked_documents_change_no_figure(tmp_path: Path, split: Any) -> None:
    without = evaluate(tmp_path / "a", *split)
    metrics = evaluate(tmp_path / "b", *split, document("void", 0, masked=True))
    assert metrics["reconstruction"] == without["reconstruction"]
    assert metrics["codes"]["num_vectors"] == without["codes"]["num_vectors"]
    assert metrics["codes"]["utilization"] == without["codes"]["utilization"]
    assert not any(math.isnan(value) for value in metrics["retrieval"].values())


def test_only_masked_documents_give_no_number(tmp_path: Path) -> None:
    metrics = evaluate(tmp_path, document("void", 0, masked=True))
    assert metrics["codes"]["utilization"] == 0
    assert math.isnan(metrics["reconstruction"]["SNR"])
    assert json.loads((tmp_path / "metrics.json").read_text())["reconstruction/SNR"] is None


def test_no_document_at_all(tmp_path: Path) -> None:
    assert evaluator(tmp_path).evaluate() == {"codes": {}}


def test_diverged_weights_are_named(tmp_path: Path) -> None:
    sample, prediction = document("d7", 0)
    prediction.frame_errors[2, 3] = math.nan
    with pytest.raises(UserError, match="document d7 is no number; its weights have diverged"):
        evaluator(tmp_path).process([sample], [prediction])
