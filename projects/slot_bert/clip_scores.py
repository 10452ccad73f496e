"""All scores of one clip, as shares that are added over clips.

Shapes: T frames of H x W pixels, K slots, D slot width, h x w token grid, R decode size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vidseg.errors import DataError, UserError
from vidseg.evaluation.discovery import Share, psnr, score_segments, used_segments
from vidseg.evaluation.merged_discovery import merged_shares
from vidseg.evaluation.region_boundary import region_boundary_shares

from .baselines import CEILING, ceiling_shares, kmeans_shares, scores_by_start
from .clips_input import to_video
from .collapse import collapse_figures
from .hidden_frames import dropped_frame_shares
from .split_scores import MODEL

__all__ = ["score_clip"]

_CHECKED = ("slots", "attn", "reconstruction")

Shares = dict[str, Share]


def score_clip(
    sample: Mapping[str, Any],
    prediction: Mapping[str, Tensor],
    *,
    num_slots: int,
    mask_source: str = "attn",
    with_baselines: bool = True,
) -> list[dict[str, Shares]]:
    """Scores a prediction and what is simpler.

    Args:
        sample: ``frames``, and ``label_maps`` and ``dropped`` if known; see the evaluator.
        prediction: ``segmentation`` ``(T, H, W)`` and any of ``reconstruction``
            ``(T, 3, R, R)``; ``attn`` ``(T, K, h, w)`` with ``slots`` ``(T, K, D)``;
            ``slots_corrected`` with ``slots_seen``, see ``dropped_frame_shares``.
        num_slots: clusters of k-means.
        mask_source: masks whose grid has a ceiling: ``"attn"``, ``"decoder"`` or ``"product"``.
        with_baselines: score k-means and the ceiling, too.

    Returns:
        Shares by method and metric, from the first frame on, and from the second one on.

    Raises:
        DataError: if truth and prediction differ in size.
        UserError: if something predicted is no number.
    """
    _check_finite(sample["video_id"], prediction)
    segments = prediction["segmentation"].numpy()
    video = to_video(torch.as_tensor(sample["frames"]))
    labels = _labels(sample, segments)
    errors = _frame_psnr(video, prediction.get("reconstruction"))
    common = _slot_shares(prediction, segments) | _dropped_shares(
        sample, prediction, labels, errors
    )
    scores: list[dict[str, Shares]] = [
        {MODEL: _means(errors, slice(start, None), "reconstruction/") | common} for start in (0, 1)
    ]
    if labels is None:
        return scores
    methods = {MODEL: _model_shares(labels, segments)}
    if with_baselines:
        methods |= kmeans_shares(video, labels, num_slots)
        grid = _mask_grid(prediction, mask_source)
        if grid is not None:
            methods[CEILING] = ceiling_shares(labels, grid)
    for name, by_start in methods.items():
        for found, shares in zip(scores, by_start, strict=True):
            found[name] = {**found.get(name, {}), **shares}
    return scores


def _check_finite(name: Any, prediction: Mapping[str, Tensor]) -> None:
    for key in _CHECKED:
        if key in prediction and not bool(torch.isfinite(prediction[key]).all()):
            raise UserError(
                f"the model's {key} of clip {name} are no numbers; its weights have diverged: "
                "evaluate an earlier checkpoint"
            )


def _labels(sample: Mapping[str, Any], segments: NDArray[Any]) -> NDArray[Any] | None:
    labels = sample.get("label_maps")
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != segments.shape:
        raise DataError(
            f"clip {sample['video_id']}: the label maps {labels.shape} and the segmentation "
            f"{segments.shape} differ in frames, height or width"
        )
    return labels


def _frame_psnr(video: Tensor, reconstruction: Tensor | None) -> dict[str, NDArray[np.float64]]:
    """Gives the PSNR of every frame: at the size it was drawn, and enlarged to the frame."""
    if reconstruction is None:
        return {}
    drawn = reconstruction.float()
    small = F.interpolate(video, drawn.shape[-2:], mode="area")
    large = F.interpolate(drawn, video.shape[-2:], mode="bilinear", align_corners=False)
    return {
        "PSNR": psnr(drawn.numpy(), small.numpy()),
        "PSNR_full_size": psnr(large.numpy(), video.numpy()),
    }


def _slot_shares(prediction: Mapping[str, Tensor], segments: NDArray[Any]) -> Shares:
    """Gives the signs of a collapse."""
    shares: Shares = {}
    if "attn" in prediction and "slots" in prediction:
        signs = collapse_figures(prediction["attn"].flatten(-2), prediction["slots"])
        shares |= {f"slots/{name}": (float(value), 1.0) for name, value in signs.items()}
    return shares | {"slots/used_slots": (used_segments(segments), 1.0)}


def _model_shares(labels: NDArray[Any], segments: NDArray[Any]) -> list[Shares]:
    """Gives all figures of the segments by start: also J&F in percent, and those of SOLV."""
    by_start = scores_by_start(labels, segments)
    for start, shares in enumerate(by_start):
        fits = region_boundary_shares(labels[start:], segments[start:])
        for name in ("J", "F", "J&F"):
            total, count = fits[name]
            shares[f"video/{name}"] = (100 * total, count)
        merged = merged_shares(labels[start:], segments[start:])
        shares |= {f"solv/{name}": share for name, share in merged.items()}
    return by_start


def _mask_grid(prediction: Mapping[str, Tensor], mask_source: str) -> tuple[int, int] | None:
    """Gives the height and width of the masks before they are enlarged, if these are known."""
    names = {"attn": ("attn",), "decoder": ("decoder_masks",)}.get(
        mask_source, ("attn", "decoder_masks")
    )
    grids = [tuple(prediction[name].shape[-2:]) for name in names if name in prediction]
    if not grids:
        return None
    return max((int(height), int(width)) for height, width in grids)


def _dropped_shares(
    sample: Mapping[str, Any],
    prediction: Mapping[str, Tensor],
    labels: NDArray[Any] | None,
    errors: Mapping[str, NDArray[np.float64]],
) -> Shares:
    """Gives the figures of the frames that were not looked at."""
    dropped = torch.as_tensor(sample.get("dropped", False)).bool()
    if not bool(dropped.any()):
        return {}
    chosen = dropped.numpy()
    shares = _means(errors, chosen, "")
    if labels is not None:
        of_frames = score_segments(labels[chosen], prediction["segmentation"].numpy()[chosen])
        shares |= {name: of_frames[f"image/{name}"] for name in ("FG-ARI", "mBO")}
    if {"slots", "slots_corrected", "slots_seen"} <= prediction.keys():
        shares |= dropped_frame_shares(prediction, dropped, labels)
    return {f"dropped/{name}": share for name, share in shares.items()}


def _means(errors: Mapping[str, NDArray[np.float64]], chosen: Any, start: str) -> Shares:
    """Gives the means over the chosen frames of a clip; clips count alike."""
    found = {name: values[chosen] for name, values in errors.items()}
    return {
        f"{start}{name}": (float(values.mean()), 1.0)
        for name, values in found.items()
        if len(values)
    }
