"""Training step of the temporal refiner on a frozen segmenter and a frozen tracker.

A clip counts as one tall map of T*h rows, so that a mask is matched and scored as a whole.

Shapes: T frames, N instances, Q frame queries, C channels, K classes, L layers, h w the mask
features' size.

Source: DVIS (Zhang et al., ICCV 2023), temporal refiner; DVIS-DAQ (Zhou et al., 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vidseg.modeling.criterion import SetCriterion
from vidseg.modeling.matcher import Layer
from vidseg.modeling.transformer_decoder.masked import DecoderOutput

from .online_training import input_size, mean_losses
from .refiner import TemporalRefiner
from .sequences import InstanceSequences, clip_instances
from .targets import FrameTarget, clip_targets, tall_target

__all__ = ["is_guided", "offline_losses", "refiner_losses"]

_GUIDED_SHARE = 0.5  # of the run, in which the tracker's own outputs decide on the pairs
_WINDOW = 5  # frames segmented at once: a bound on memory without effect on the values


def offline_losses(model: Any, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Gives the weighted losses of the refiner, averaged over the videos of the batch.

    Args:
        model: has ``segment``, ``tracker``, ``refiner``, ``daq_criterion`` (a ``SetCriterion``),
            ``training_settings`` and ``sem_seg_head.predictor.query_feat``; everything but the
            refiner is frozen.
        samples: see the data room; ``sample["iteration"]`` and ``sample["max_iter"]`` tell the
            position in the run.
    """
    losses = []
    for sample in samples:
        with torch.no_grad():
            clip = _segment(model, sample["frames"])
            instances = _instances(model, clip)
        target = clip_targets(sample["instances"], size=input_size(clip), device=clip.masks.device)
        guided = is_guided(sample.get("iteration", 0), sample.get("max_iter", 0))
        losses.append(
            refiner_losses(
                model.refiner,
                model.daq_criterion,
                clip,
                instances,
                tall_target(target),
                guided=guided,
            )
        )
    return mean_losses(losses)


def refiner_losses(
    refiner: TemporalRefiner,
    criterion: SetCriterion,
    clip: DecoderOutput,
    instances: InstanceSequences,
    target: FrameTarget,
    *,
    guided: bool,
) -> dict[str, Tensor]:
    """Refines the instances of a clip and scores every layer.

    Args:
        refiner: the network.
        criterion: matches and scores; its points are those of a whole clip.
        clip: segmenter output of T frames, without graph.
        instances: what enters the refiner, with the tracker's logits and masks.
        target: objects of the clip as tall maps.
        guided: take the pairs of all layers from the tracker's outputs instead of matching each
            layer on its own.
    """
    indices = None
    if guided:
        assert instances.masks is not None
        online = instances.logits[None], _tall(instances.masks[None])
        indices = criterion.matcher(*online, [target])
    padding = instances.padding[None]
    outputs = refiner(instances.embeds[None], clip.embeds[None], padding)
    layers: list[Layer] = [
        (
            refiner.classify(queries, padding),  # (1, N, K+1)
            _tall(refiner.segment(queries, clip.mask_features[None])),  # (1, N, 1, T*h, w)
        )
        for queries in outputs
    ]
    return criterion(layers, [target], indices=indices)


def is_guided(iteration: int, max_iter: int) -> bool:
    """Tells whether an iteration lies in the first half of the run."""
    return iteration < _GUIDED_SHARE * max_iter


def _segment(model: Any, frames: Tensor) -> DecoderOutput:
    parts = [model.segment(window.to(model.device)) for window in frames.split(_WINDOW)]
    return DecoderOutput(
        logits=torch.cat([part.logits for part in parts]),
        masks=torch.cat([part.masks for part in parts]),
        embeds=torch.cat([part.embeds for part in parts]),
        embeds_without_norm=torch.cat([part.embeds_without_norm for part in parts]),
        mask_features=torch.cat([part.mask_features for part in parts]),
    )


def _instances(model: Any, clip: DecoderOutput) -> InstanceSequences:
    """Runs the tracker; a clip without any track is filled, or the refiner had no input."""
    settings, table = model.training_settings, model.sem_seg_head.predictor.query_feat.weight
    rules, wanted = settings.rules.for_training(), settings.refiner_input
    instances = clip_instances(model.tracker, clip, rules, table, wanted)
    if len(instances):
        return instances
    return clip_instances(model.tracker, clip, rules, table, replace(wanted, fill=True))


def _tall(masks: Tensor) -> Tensor:
    """Lays frames under each other: ``(1, N, T, h, w)`` to ``(1, N, 1, T*h, w)``."""
    return masks.flatten(2, 3)[:, :, None]
