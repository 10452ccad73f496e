"""How hard the clips are, told by what needs no learning: k-means and the best coarse masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from vidseg.evaluation.discovery import mean_shares, score_segments
from vidseg.projects.slot_bert.clip_reading import reduce_frames, reduce_labels
from vidseg.projects.slot_bert.grid_ceiling import grid_ceiling
from vidseg.projects.slot_bert.kmeans_baseline import kmeans_labels
from vidseg.projects.slot_bert.moving_shapes import MovingShapes, ShapeClip

pytestmark = pytest.mark.slow
NUM_CLIPS = 12


def scores(split: str, segment: Callable[[ShapeClip], tuple[Tensor, Tensor]]) -> tuple[float, ...]:
    """Video FG-ARI and mBO."""
    shapes, videos = MovingShapes(split), []
    for index in range(NUM_CLIPS):
        labels, segments = segment(shapes.clip(index))
        videos.append(score_segments(labels.numpy(), segments.numpy()))
    mean = mean_shares(videos)
    return mean["video/FG-ARI"], mean["video/mBO"]


@pytest.mark.parametrize(
    ("grid", "expected"), [(8, (0.60, 0.61)), (16, (0.88, 0.86)), (32, (0.96, 0.95))]
)
def test_a_coarse_grid_bounds_any_model(grid: int, expected: tuple[float, float]) -> None:
    found = scores(
        "val", lambda clip: (clip.label_maps, grid_ceiling(clip.label_maps, (grid, grid)))
    )
    assert found == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize(
    ("split", "pos_weight", "expected"),
    [
        ("val", 0.0, (0.67, 0.64)),
        ("val", 0.3, (0.74, 0.59)),
        ("hard_val", 0.0, (0.46, 0.46)),
        ("hard_val", 0.3, (0.50, 0.44)),
    ],
)
def test_clustering_pixels_goes_far(
    split: str, pos_weight: float, expected: tuple[float, float]
) -> None:
    def segment(clip: ShapeClip) -> tuple[Tensor, Tensor]:
        frames = reduce_frames(clip.frames, (64, 64))
        return reduce_labels(clip.label_maps, (64, 64)), kmeans_labels(
            frames, 7, pos_weight=pos_weight
        )

    assert scores(split, segment) == pytest.approx(expected, abs=0.06)
