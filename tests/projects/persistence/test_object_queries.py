"""Object queries: matching, presence per frame, losses."""

from __future__ import annotations

import math

import torch

from tests.projects.persistence.token_samples import FULL, NUM_FRAMES, build, sample
from vidseg.projects.persistence.object_queries import (
    QueryOutput,
    match_queries,
    query_losses,
)

OBJECTS = {
    "labels": torch.tensor([1, 0]),
    "presence": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0]]).bool(),
    "durations": torch.tensor([1.0, 0.5]),
}


def perfect() -> QueryOutput:
    """Query 2 is object 0, query 0 is object 1, query 1 is none."""
    logits = torch.full((1, 3, 3), -20.0)
    for query, label in enumerate((0, 2, 1)):
        logits[0, query, label] = 20.0
    presence = torch.full((1, 3, 6), -20.0)  # of a longer clip in the batch
    presence[0, 2, :4] = 20.0
    presence[0, 0, 1:3] = 20.0
    return QueryOutput(logits, presence, torch.tensor([[0.5, 0.3, 1.0]]))


def test_objects_get_the_query_that_fits() -> None:
    ((rows, columns),) = match_queries(perfect(), [OBJECTS])
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 1, 2: 0}
    losses = query_losses(perfect(), [OBJECTS])
    assert all(value < 1e-6 for value in losses.values())


def test_each_part_of_a_wrong_answer_costs() -> None:
    wrong = perfect()
    wrong.durations[0, 2] = 0.6
    wrong.presence[0, 0, 1] = 0.0
    wrong.logits[0, 1] = torch.zeros(3)
    losses = query_losses(wrong, [OBJECTS])
    assert math.isclose(losses["loss_query_duration"], (0.4 - 0.05) / 2, rel_tol=1e-5)
    assert math.isclose(losses["loss_query_presence"], math.log(2) / 4 / 2, rel_tol=1e-5)
    assert math.isclose(losses["loss_query_class"], 0.1 * math.log(3) / 2.1, rel_tol=1e-5)


def test_more_objects_than_queries_and_none_at_all() -> None:
    many = {name: torch.cat([value] * 3) for name, value in OBJECTS.items()}
    none = {name: value[:0] for name, value in OBJECTS.items()}
    ((rows, _),) = match_queries(perfect(), [many])
    assert len(rows) == 3
    losses = query_losses(perfect(), [none])
    assert losses["loss_query_presence"] == losses["loss_query_duration"] == 0
    assert losses["loss_query_class"] > 1
    broken = perfect()
    broken.logits[:] = torch.nan
    assert len(match_queries(broken, [OBJECTS])[0][0]) == 2


def test_presence_is_where_a_token_of_the_frame_fits_the_query() -> None:
    model = build(**FULL)
    one = sample(2)
    later = one["detections"].frame > 0
    one["detections"], one["patches"] = one["detections"].select(later), one["patches"][later]
    prediction = model.predict(one["detections"], one["patches"])
    assert prediction.queries is not None
    presence = prediction.queries["presence"]
    assert presence.shape == (6, NUM_FRAMES)
    floor = 1 / (1 + math.exp(5))
    torch.testing.assert_close(presence[:, 0], torch.full((6,), floor))
    assert (presence[:, 1:] > floor).all()
