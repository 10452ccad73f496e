"""Births on objects that are tracked already are taken back."""

from __future__ import annotations

import torch

from vidseg.projects.dvis_daq.memory import without_doubles


def _squares(*lefts: int) -> torch.Tensor:
    masks = torch.zeros(len(lefts), 4, 20, dtype=torch.bool)
    for row, left in enumerate(lefts):
        masks[row, :, left : left + 4] = True
    return masks


def test_birth_on_a_visible_track_is_taken_back_however_good_it_is():
    visible = torch.tensor([True, True])
    kept = without_doubles(
        visible, torch.tensor([0.2, 0.9]), _squares(0, 0), num_tracks=1, overlap=0.5
    )
    assert kept.tolist() == [True, False]


def test_best_of_two_births_on_one_object_stays():
    visible = torch.tensor([True, True, True])
    scores = torch.tensor([0.5, 0.8, 0.6])
    kept = without_doubles(visible, scores, _squares(0, 1, 10), num_tracks=0, overlap=0.5)
    assert kept.tolist() == [False, True, True]


def test_tracks_never_suppress_each_other():
    visible = torch.tensor([True, True])
    kept = without_doubles(visible, torch.ones(2), _squares(3, 3), num_tracks=2, overlap=0.5)
    assert kept.tolist() == [True, True]


def test_masks_belong_to_the_visible_rows_alone():
    visible = torch.tensor([False, True, False, True])
    scores = torch.tensor([0.0, 0.9, 0.0, 0.9])
    kept = without_doubles(visible, scores, _squares(0, 8), num_tracks=2, overlap=0.5)
    assert kept.tolist() == visible.tolist()


def test_overlap_below_the_threshold_is_another_object():
    visible = torch.tensor([True, True])
    kept = without_doubles(visible, torch.ones(2), _squares(0, 2), num_tracks=1, overlap=0.5)
    assert kept.tolist() == [True, True]  # IoU is 1/3


def test_no_row_at_all():
    none = torch.zeros(0, dtype=torch.bool)
    kept = without_doubles(none, torch.zeros(0), torch.zeros(0, 4, 4), num_tracks=0, overlap=0.5)
    assert kept.shape == (0,)
