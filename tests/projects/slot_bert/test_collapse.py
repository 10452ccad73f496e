"""Signs of a collapse."""

from __future__ import annotations

import pytest
import torch

from vidseg.projects.slot_bert.collapse import collapse_figures, collapse_warnings


def figures_of(areas: list[int], slots: torch.Tensor) -> dict[str, float]:
    owner = torch.repeat_interleave(torch.arange(len(areas)), torch.tensor(areas))
    attn = torch.nn.functional.one_hot(owner, len(areas)).T.float()
    return {name: float(value) for name, value in collapse_figures(attn, slots).items()}


def test_slots_that_share_a_frame() -> None:
    figures = figures_of([50, 48, 1, 1], torch.eye(4))
    assert figures["used_slots"] == 2  # the others have no more than 1 %
    assert figures["largest_share"] == pytest.approx(0.5)
    assert figures["max_mask"] == 1
    assert figures["mask_entropy"] == pytest.approx(0, abs=1e-6)
    assert figures["slot_cosine"] == pytest.approx(0, abs=1e-6)
    assert not collapse_warnings(figures)


def test_one_slot_that_takes_everything() -> None:
    figures = figures_of([100, 0, 0], torch.eye(3))
    assert (figures["used_slots"], figures["largest_share"]) == (1, 1)
    (warning,) = collapse_warnings(figures)
    assert "1 of them" in warning
    assert "LOSS.APPEARANCE" in warning


def test_slots_that_are_all_alike() -> None:
    slots = torch.ones(2, 3, 4, 8) + 0.01 * torch.randn(2, 3, 4, 8)
    attn = torch.full((2, 3, 4, 10), 0.25)
    figures = collapse_figures(attn, slots)
    assert figures["max_mask"] == 0.25
    assert figures["mask_entropy"] == pytest.approx(1, abs=1e-6)
    assert figures["slot_cosine"] > 0.99
    assert any("nearly the same vector" in text for text in collapse_warnings(figures))


def test_figures_are_means_over_frames_without_gradients() -> None:
    attn = torch.randn(2, 3, 4, 50).softmax(2).requires_grad_()
    slots = torch.randn(2, 3, 4, 8, requires_grad=True)
    whole = collapse_figures(attn, slots)
    frames = [collapse_figures(attn[b, t], slots[b, t]) for b in range(2) for t in range(3)]
    for name, value in whole.items():
        assert not value.requires_grad
        torch.testing.assert_close(value, torch.stack([frame[name] for frame in frames]).mean())
    single = collapse_figures(torch.ones(3, 1, 5), torch.randn(3, 1, 8))
    assert all(value.isfinite() for value in single.values())
