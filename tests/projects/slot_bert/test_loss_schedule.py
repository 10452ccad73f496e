"""Weights of losses over a run."""

from __future__ import annotations

from typing import Any

import pytest

from vidseg.projects.slot_bert.loss_schedule import LossSchedule


def weights_of(name: str, ramps: list[Any], points: list[float]) -> list[float]:
    schedule = LossSchedule({"MSE": 1.0, "ENTROPY": 0.0}, ramps)
    return [schedule.at(point)[name] for point in points]


def test_weights_without_ramps_are_constant() -> None:
    schedule = LossSchedule({"MSE": 1.0, "ENTROPY": 0.0})
    assert schedule.at(0.0) == schedule.at(0.5) == schedule.at(1.0) == {"MSE": 1.0, "ENTROPY": 0.0}
    assert schedule.is_used("MSE")
    assert not schedule.is_used("ENTROPY")


def test_a_ramp_is_linear_and_takes_the_place_of_the_weight() -> None:
    ramp = ["MSE", 0.2, 0.6, 0.0, 2.0]
    found = weights_of("MSE", [ramp], [0.0, 0.2, 0.3, 0.5, 0.6, 1.0])
    assert found == pytest.approx([0.0, 0.0, 0.5, 1.5, 2.0, 2.0])
    assert weights_of("ENTROPY", [ramp], [0.0, 0.5, 1.0]) == [0.0] * 3


def test_ramps_follow_each_other_and_may_jump() -> None:
    ramps = [["ENTROPY", 0.1, 0.1, 0, 0.5], ["MSE", 0, 1, 0, 1], ["ENTROPY", 0.6, 0.8, 0.5, 0.0]]
    points = [0.0, 0.099, 0.1, 0.5, 0.6, 0.7, 0.8, 1.0]
    expected = [0.0, 0.0, 0.5, 0.5, 0.5, 0.25, 0.0, 0.0]
    assert weights_of("ENTROPY", ramps, points) == pytest.approx(expected)
    schedule = LossSchedule({"MSE": 0.0, "ENTROPY": 0.0}, ramps)
    assert schedule.is_used("ENTROPY")
    assert not LossSchedule({"MSE": 1.0}, [["MSE", 0, 1, 0, 0]]).is_used("MSE")


@pytest.mark.parametrize(
    ("ramps", "message"),
    [
        ([["ENTROPIE", 0, 1, 0, 1]], "no loss 'ENTROPIE'; nearest: ENTROPY"),
        ([["MSE", 0, 1, 0]], r"a ramp is \[name, start, end, from, to\]"),
        (["MSE"], r"a ramp is \[name, start, end, from, to\], not 'MSE'"),
        ([["MSE", 0, "end", 0, 1]], r"a ramp is \[name, start, end, from, to\]"),
        ([["MSE", 0.5, 0.2, 0, 1]], "within 0 to 1"),
        ([["MSE", 0, 2, 0, 1]], "within 0 to 1"),
        ([["MSE", 0, 1, 0, -1]], "negative"),
        ([["MSE", 0, 0.5, 0, 1], ["MSE", 0.4, 1, 1, 0]], "two ramps of MSE overlap"),
    ],
)
def test_wrong_ramps_are_refused(ramps: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weights_of("MSE", ramps, [0.0])


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="of MSE is negative"):
        LossSchedule({"MSE": -1.0})
