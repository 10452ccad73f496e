"""Pictures of clips: the numbers behind them, and that any clip can be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.projects.persistence.picture_ground import make_prediction, make_sample
from vidseg.projects.persistence.clip_view import PERSISTENT, TRANSIENT, UNKNOWN, ClipView
from vidseg.projects.persistence.pictures import (
    Heat,
    attention_source,
    curves_by_class,
    save_clip_pictures,
)
from vidseg.projects.persistence.prediction import TokenPrediction
from vidseg.projects.persistence.token_graph import same_object_share

Clip = tuple[dict[str, Any], TokenPrediction]


def empty_clip() -> Clip:
    sample = make_sample(4)
    prediction = make_prediction(sample)
    none = torch.zeros(0, dtype=torch.int64)
    return sample, select(prediction, none)


def clip_without_truth() -> Clip:
    sample = make_sample(9, (36, 64))
    prediction = make_prediction(sample, summary=False)
    sample["labels"].fill_(-1)
    sample["object_ids"].fill_(-1)
    return {**sample, "objects": {}}, prediction


def select(prediction: TokenPrediction, rows: torch.Tensor) -> TokenPrediction:
    """Leaves out all tokens but those rows."""
    return replace(
        prediction,
        detections=prediction.detections.select(rows),
        logits=prediction.logits[rows],
        attention={name: a[rows] for name, a in prediction.attention.items()},
        matrix=prediction.matrix[rows][:, rows],
        tracks=prediction.tracks[rows],
        kept=prediction.kept[rows],
    )


def clip_of(num_frames: int) -> Clip:
    sample = make_sample(num_frames)
    return sample, make_prediction(sample)


def test_an_id_may_be_a_path(tmp_path: Path) -> None:
    sample, prediction = clip_of(1)
    files = save_clip_pictures(tmp_path, {**sample, "video_id": "day 1/bear"}, prediction)
    assert files[0] == tmp_path / "attention_sample_day 1%2Fbear.png"
    assert all(file.is_file() for file in files)


@pytest.mark.parametrize(
    "clip",
    [clip_of(7), clip_of(1), empty_clip(), clip_without_truth()],
    ids=["usual", "one frame", "no blob", "no truth"],
)
def test_any_clip_is_drawn(clip: Clip, tmp_path: Path) -> None:
    sample, prediction = clip
    files = save_clip_pictures(tmp_path, sample, prediction)
    assert [file.name for file in files] == [
        "attention_sample_clip_7.png",
        "token_graph_clip_7.png",
        "tracks_clip_7.png",
    ]
    for file in files:
        with Image.open(file) as picture:
            assert 500 < picture.width < 2500
            assert np.asarray(picture.convert("L")).std() > 1  # something is drawn


def test_truth_follows_the_tokens_that_were_kept() -> None:
    sample = make_sample()
    rows = torch.tensor([3, 7, 12])
    prediction = select(make_prediction(sample), rows)
    labels, ids = sample["labels"][rows], sample["object_ids"][rows]
    for given in (sample, {**sample, "labels": labels, "object_ids": ids}):
        view = ClipView.of(given, prediction)
        assert view.truth.tolist() == labels.tolist()
        assert view.object_ids.tolist() == ids.tolist()


def test_the_title_counts_objects_and_decisions() -> None:
    sample = make_sample()
    prediction = make_prediction(sample)
    right = torch.where(sample["labels"] == 1, 3.0, -3.0)
    right[sample["labels"] == 1] *= torch.tensor([-1.0] + [1.0] * 29)  # one of 30 is wrong
    view = ClipView.of(sample, replace(prediction, logits=right))
    assert view.summary() == (
        "clip_7: 2 persistent and 3 transient objects; decided rightly: 29 of 30 blobs of "
        "persistent objects and 14 of 14 blobs of transient objects; 1 blob of no object"
    )
    assert view.is_wrong.sum() == 1


def test_heat_peaks_at_the_share_of_a_blob() -> None:
    sample = make_sample()
    prediction = make_prediction(sample)
    view = ClipView.of(sample, prediction)
    attention = prediction.attention["summary"].numpy()
    heat = Heat(view, attention)
    alone = int(np.flatnonzero(view.frame == 7)[0])  # the only blob of its frame
    drawn = heat.splats(7)
    assert drawn.max() == pytest.approx(attention[alone] * len(attention), rel=0.03)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert abs(row - view.y[alone]) <= 0.5
    assert abs(column - view.x[alone]) <= 0.5
    even = Heat(view, np.full(len(view), 1 / len(view)))
    assert max(even.splats(frame).max() for frame in range(16)) <= 1.0


def test_curves_sum_to_the_attention_of_the_clip() -> None:
    sample = make_sample()
    prediction = make_prediction(sample)
    view = ClipView.of(sample, prediction)
    curves = curves_by_class(view, prediction.attention["summary"].numpy())
    assert set(curves) == {PERSISTENT, TRANSIENT, UNKNOWN}
    assert sum(got.sum() for got, _ in curves.values()) == pytest.approx(100)
    assert sum(even.sum() for _, even in curves.values()) == pytest.approx(100)
    persistent = prediction.attention["summary"][sample["labels"] == 1].sum()
    assert curves[PERSISTENT][0].sum() == pytest.approx(100 * float(persistent))


def test_pictures_show_the_summary_query_where_there_is_one() -> None:
    sample = make_sample()
    assert attention_source(make_prediction(sample)) == "summary"
    assert attention_source(make_prediction(sample, summary=False)) == "layer 2"


def test_share_of_the_same_object() -> None:
    groups = np.array([0, 0, 0, 1, -1])
    even = np.full((5, 5), 0.2)
    share, expected = same_object_share(even, groups)
    assert share == pytest.approx(expected)
    assert expected == pytest.approx((3 * 2 + 0) / 4 / 4)  # of four tokens, among four others
    looks = np.zeros((5, 5))
    looks[[0, 1, 2], [1, 2, 0]] = 0.6  # the rest is the token's own and the null key's
    looks[np.arange(5), np.arange(5)] = 0.3
    looks[3, 0] = 0.2
    assert same_object_share(looks, groups)[0] == pytest.approx(3 / 4)
    assert np.isnan(same_object_share(even, np.full(5, -1))[0])
