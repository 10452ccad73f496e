"""What is hidden of clips, and the first guess at it."""

from __future__ import annotations

import pytest
import torch

from vidseg.projects.slot_bert.frame_masking import MASK_UNITS, draw_hidden, interpolate

LENGTHS = (1, 2, 4, 5, 6, 23, 24, 29, 50)


@pytest.mark.parametrize("unit", MASK_UNITS)
@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_something_is_hidden_and_something_is_seen(unit: str, ratio: float) -> None:
    for num_frames in LENGTHS:
        hidden = draw_hidden(40, num_frames, 3, ratio=ratio, unit=unit)
        assert hidden.shape == (40, num_frames, 3)
        assert hidden.flatten(1).any(1).all() == (num_frames > 1)
        assert not hidden.all(1).any()
        is_whole = (hidden.all(2) == hidden.any(2)).all()
        assert is_whole or unit == "slot"


def test_how_much_is_hidden() -> None:
    def share(unit: str) -> float:
        hidden = draw_hidden(400, 24, 4, ratio=0.2, unit=unit)
        return hidden.float().mean().item()

    assert share("frame") == pytest.approx(0.2, abs=0.02)
    assert share("slot") == pytest.approx(0.2, abs=0.02)
    assert share("span") == pytest.approx(0.2, abs=0.05)
    assert share("last") == pytest.approx(1 / 24)


def test_spans_are_runs_and_the_last_frame_is_the_last() -> None:
    hidden = draw_hidden(200, 30, 1, ratio=0.1, unit="span")[..., 0]
    inside = hidden[:, 1:-1] & ~hidden[:, :-2] & ~hidden[:, 2:]
    assert not inside.any(), "no run of a single frame, but at the ends"
    last = draw_hidden(3, 7, 2, unit="last")
    assert last[:, -1].all()
    assert not last[:, :-1].any()


def test_draws_repeat() -> None:
    first, again, other = (
        draw_hidden(4, 9, 2, unit="span", generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_interpolation_is_linear_in_between_and_constant_at_the_ends() -> None:
    values = torch.tensor([9.0, 1.0, 9.0, 9.0, 4.0, 9.0, 9.0]).view(1, 7, 1, 1)
    hidden = torch.tensor([1, 0, 1, 1, 0, 1, 1]).bool().view(1, 7, 1)
    filled = interpolate(values, hidden).flatten()
    torch.testing.assert_close(filled, torch.tensor([1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0]))


def test_interpolation_against_a_loop() -> None:
    torch.manual_seed(1)
    values, hidden = torch.randn(3, 11, 2, 4), torch.rand(3, 11, 2) < 0.5
    hidden[0, :, 1] = True  # nothing to interpolate from
    filled = interpolate(values, hidden)
    for b in range(3):
        for k in range(2):
            seen = [t for t in range(11) if not hidden[b, t, k]]
            for t in range(11):
                before = max((s for s in seen if s <= t), default=None)
                after = min((s for s in seen if s >= t), default=None)
                if before is None and after is None:
                    expected = torch.zeros(4)
                elif before is None or after is None or before == after:
                    expected = values[b, before if before is not None else after, k]
                else:
                    share = (t - before) / (after - before)
                    expected = values[b, before, k].lerp(values[b, after, k], share)
                torch.testing.assert_close(filled[b, t, k], expected)


def test_hidden_values_do_not_reach_the_result() -> None:
    values = torch.randn(1, 5, 2, 3)
    hidden = torch.zeros(1, 5, 2, dtype=torch.bool)
    hidden[0, 2:4, 0] = True
    spoilt = values.masked_fill(hidden[..., None], torch.nan)
    assert torch.equal(interpolate(spoilt, hidden), interpolate(values, hidden))
    assert torch.equal(interpolate(values, torch.zeros_like(hidden)), values)
