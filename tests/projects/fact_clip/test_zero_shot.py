"""Zero-shot protocol: accuracy by groups, calibrated stacking, the curve, metrics of a data set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.golden_utils import load_case
from vidseg.projects.fact_clip.text_matching import ZeroShot, match_texts
from vidseg.projects.fact_clip.zero_shot import (
    FrameScores,
    encode_zero_shot,
    group_accuracy,
    harmonic_mean,
    label_ids,
    stacking_curve,
    zero_shot_scores,
)

CASES = ("one_video", "missing_classes", "ignored_frames", "seen_only")
CLASSES = ("rest", "cut", "pour", "stir", "peel")


def matched(
    frames: torch.Tensor, texts: torch.Tensor, seen: torch.Tensor, gamma: float
) -> ZeroShot:
    names = [str(number) for number in range(len(texts))]
    return match_texts(
        F.normalize(frames, dim=1),
        F.normalize(texts, dim=1),
        names,
        seen,
        gamma=gamma,
        temperature=0.07,
    )


@pytest.mark.parametrize("case", CASES)
def test_golden_labels_and_accuracies(case: str) -> None:
    golden = load_case("fact/clip_contrastive")
    given = {name: golden.inputs[f"{case}_{name}"] for name in ("text", "labels", "seen_mask")}
    frames = golden.inputs[f"{case}_projected"][:, 0]
    expected = golden.outputs
    for gamma, name in ((0.0, "pred_all"), (0.05, "pred_gamma0.05"), (0.2, "pred_gamma0.2")):
        found = matched(frames, given["text"], given["seen_mask"], gamma)
        assert torch.equal(found.labels, expected[f"{case}_{name}"])
    torch.testing.assert_close(found.cosine, expected[f"{case}_cosine"], rtol=0, atol=1e-6)
    seen = given["seen_mask"]
    unseen = (~seen).nonzero()[:, 0].tolist()
    if unseen:
        only = matched(frames, given["text"][~seen], seen[~seen], 0.0).labels
        assert torch.equal(torch.tensor(unseen)[only], expected[f"{case}_pred_unseen_only"])
    labels = given["labels"].numpy()
    kept = labels >= 0
    closed = expected[f"{case}_pred_all"].numpy()[kept]
    groups = (seen.nonzero()[:, 0].tolist(), unseen)
    found_seen, found_unseen = (group_accuracy(labels[kept], closed, g) / 100 for g in groups)
    assert found_seen == pytest.approx(float(expected[f"{case}_acc_seen"]), abs=1e-9)
    assert found_unseen == pytest.approx(
        float(expected[f"{case}_acc_unseen"]), abs=1e-9, nan_ok=True
    )
    assert float(harmonic_mean(found_seen, found_unseen)) == pytest.approx(
        float(expected[f"{case}_harmonic"]), abs=1e-9
    )


def random_frames(num_frames: int = 300, decimals: int = 2) -> FrameScores:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, num_frames)
    return FrameScores(
        truth,
        np.where(rng.random(num_frames) < 0.6, np.where(truth < 3, truth, 1), 2),
        np.where(rng.random(num_frames) < 0.6, np.where(truth > 2, truth, 3), 4),
        np.round(rng.normal(0.1, 0.2, num_frames), decimals),
    )


@pytest.mark.parametrize("decimals", [1, 2, 17])
def test_curve_is_what_stacking_gives_at_every_gamma(decimals: int) -> None:
    frames = random_frames(decimals=decimals)
    curve = stacking_curve(frames, {1, 2}, {3, 4})
    assert len(curve.gammas) == len(np.unique(frames.margin)) + 1
    for gamma, seen, unseen in zip(curve.gammas, curve.seen, curve.unseen, strict=True):
        labels = frames.labels_at(gamma)
        assert group_accuracy(frames.truth, labels, {1, 2}) == pytest.approx(seen)
        assert group_accuracy(frames.truth, labels, {3, 4}) == pytest.approx(unseen)
    for gamma in np.linspace(-1, 1, 401):
        labels = frames.labels_at(gamma)
        pair = [group_accuracy(frames.truth, labels, group) for group in ({1, 2}, {3, 4})]
        assert float(harmonic_mean(*pair)) <= curve.harmonic[curve.best] + 1e-9


def test_curve_tells_neighbouring_floats_apart() -> None:
    low = 0.1
    margin = np.array([low, np.nextafter(low, 1)])
    frames = FrameScores(np.array([3, 1]), np.array([1, 1]), np.array([3, 3]), margin)
    curve = stacking_curve(frames, {1}, {3})
    assert curve.harmonic[curve.best] == 100
    assert (frames.labels_at(curve.gammas[curve.best]) == frames.truth).all()


def test_area_of_perfect_and_of_useless_scores() -> None:
    truth = np.array([1, 1, 3, 3])
    perfect = FrameScores(truth, np.full(4, 1), np.full(4, 3), np.array([1.0, 2.0, -1.0, -2.0]))
    assert stacking_curve(perfect, {1}, {3}).area == pytest.approx(100)
    useless = FrameScores(truth, np.full(4, 1), np.full(4, 3), np.zeros(4))
    curve = stacking_curve(useless, {1}, {3})
    assert curve.area == pytest.approx(50)
    assert curve.harmonic.max() == 0


def test_groups_average_over_classes_that_occur() -> None:
    truth = np.array([1, 1, 1, 2, 0])
    assert group_accuracy(truth, [1, 1, 0, 0, 0], {1, 2, 4}) == pytest.approx(100 / 3)
    assert np.isnan(group_accuracy(truth, truth, {3, 4}))
    assert np.isnan(group_accuracy([], [], {1}))
    assert float(harmonic_mean(50.0, float("nan"))) == 0


def predicted(labels: list[int], cosine: torch.Tensor, gamma: float = 0.25) -> ZeroShot:
    return ZeroShot(
        torch.tensor(labels),
        cosine,
        cosine.softmax(1),
        list(CLASSES),
        gamma,
        torch.tensor([True, True, True, False, False]),
    )


def test_scores_of_a_data_set_are_those_of_all_its_frames() -> None:
    torch.manual_seed(0)
    videos, cosines, truths = [], [], []
    for length in (30, 50):
        cosine = torch.randn(length, 5) / 5
        truth = torch.randint(5, (length,)).numpy()
        truth[:3] = -100
        labels = (cosine - 0.25 * torch.tensor([1.0, 1, 1, 0, 0])).argmax(1)
        encoded = json.loads(json.dumps(encode_zero_shot(predicted(labels.tolist(), cosine))))
        videos.append((encoded, truth))
        cosines.append(cosine[3:])
        truths.append(truth[3:])
    scores = zero_shot_scores(videos, CLASSES, background=[0])
    cosine, truth = torch.cat(cosines), np.concatenate(truths)
    for ending, gamma in (("", 0.25), ("_gamma0", 0.0), ("_best", scores["gamma_best"])):
        labels = (cosine - gamma * torch.tensor([1.0, 1, 1, 0, 0])).argmax(1).numpy()
        seen = np.mean([100 * np.mean(labels[truth == c] == c) for c in (1, 2)])
        unseen = np.mean([100 * np.mean(labels[truth == c] == c) for c in (3, 4)])
        assert scores[f"seen{ending}"] == pytest.approx(seen)
        assert scores[f"unseen{ending}"] == pytest.approx(unseen)
        assert scores[f"H{ending}"] == pytest.approx(2 * seen * unseen / (seen + unseen))
    only = 3 + cosine[:, 3:].argmax(1).numpy()
    conventional = np.mean([100 * np.mean(only[truth == c] == c) for c in (3, 4)])
    assert scores["unseen_only"] == pytest.approx(conventional)
    assert scores["chance_unseen_only"] == 50
    assert scores["H_best"] >= max(scores["H"], scores["H_gamma0"])


def test_untrained_matching_is_scored_likewise() -> None:
    labels = [1, 1, 3, 3, 4, 4]
    cosine = F.one_hot(torch.tensor(labels), 5).float()
    raw = torch.tensor([[0, 1, 0, 0, 0.5]] * 3 + [[0, 0, 0, 1, 0.5]] * 3).float()
    zero_shot = replace(predicted(labels, cosine), untrained=raw)
    scores = zero_shot_scores([(encode_zero_shot(zero_shot), np.array(labels))], CLASSES, [0])
    assert (scores["seen"], scores["unseen"]) == (100, 100)
    assert (scores["seen_untrained"], scores["unseen_untrained"]) == (100, 25)
    assert scores["H_untrained"] == pytest.approx(40)
    assert scores["unseen_only_untrained"] == pytest.approx(25)


def test_group_metrics_take_other_classes_as_background() -> None:
    labels = [0, 0, 1, 1, 3, 3, 2, 2, 4, 4]
    truth = np.array([0, 0, 1, 1, 3, 3, 2, 2, 3, 3])
    cosine = F.one_hot(torch.tensor(labels), 5).float()
    scores = zero_shot_scores(
        [(encode_zero_shot(predicted(labels, cosine)), truth)], CLASSES, background=[0]
    )
    assert scores["Edit_seen"] == 100
    assert scores["F1@50_seen"] == pytest.approx(100, abs=0.01)
    assert scores["Edit_unseen"] == 50
    assert scores["F1@50_unseen"] == pytest.approx(50, abs=0.01)


def test_predictions_at_a_lower_rate_are_stretched() -> None:
    labels = [1, 3]
    cosine = F.one_hot(torch.tensor(labels), 5).float()
    truth = np.array([1, 1, 1, 3, 3, 3])
    encoded = encode_zero_shot(predicted(labels, cosine))
    scores = zero_shot_scores([(encoded, truth)], CLASSES, background=[0])
    assert (scores["seen"], scores["unseen"], scores["H"]) == (100, 100, 100)


def test_without_unseen_candidates_there_are_no_scores() -> None:
    cosine = torch.eye(3)
    seen = torch.tensor([True, True, True])
    closed = ZeroShot(torch.arange(3), cosine, cosine, list(CLASSES[:3]), 0.0, seen)
    assert zero_shot_scores([(encode_zero_shot(closed), np.arange(3))], CLASSES) == {}


def test_candidates_are_found_by_name() -> None:
    found = label_ids([0, 1, 2], ["stir", "fly", "cut"], CLASSES)
    assert found.tolist() == [3, -1, 1]
