"""The weighted losses of a batch, each counted as far as the run has come.

Shapes: B clips, T frames, M = B T, K slots, Ds slot width, h x w token grid, R decode size; P
positions: R x R or some of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError

from .appearance import SCOPES, appearance_loss, position_loss, weigh_luma
from .composition import COMPOSITIONS, compose, decoder_masks, resize_maps, without_hidden
from .loss_schedule import LossSchedule
from .losses import (
    coverage_loss,
    distillation_loss,
    entropy_loss,
    frame_contrast,
    masked_slot_loss,
    orthogonality_loss,
    time_contrast,
)
from .positions import cell_centres

__all__ = ["LOSSES", "LOSS_MASKS", "SlotCriterion", "SlotOutputs"]

LOSSES = (
    "RECONSTRUCTION",
    "ORTHOGONALITY",
    "ENTROPY",
    "COVERAGE",
    "APPEARANCE",
    "FEATURES",
    "FEATURE_APPEARANCE",
    "DISTILLATION",
    "MASKED_SLOTS",
    "TIME_CONTRAST",
    "FRAME_CONTRAST",
)
LOSS_MASKS = ("attn", "decoder")

_KEY = "MODEL.SLOT_BERT"
_OF_MASKS = ("ENTROPY", "COVERAGE", "APPEARANCE", "FEATURE_APPEARANCE")
_OF_DECODER = ("RECONSTRUCTION", "FEATURES", "DISTILLATION")
_POS_WEIGHT = "POS_WEIGHT"
_RGB = 3


@dataclass
class SlotOutputs:
    """What a training step computed.

    Attributes:
        slots: ``(B, T, K, Ds)``, final.
        slots_corrected: ``(B, T, K, Ds)``, straight out of slot attention.
        attn: ``(B, T, K, h, w)``, sum 1 over K.
        rgb: ``(M, K, 3, P)`` or ``(M, K, 3, R, R)``, what the slots draw; None if nothing reads it.
            Channels after the third are the features that they draw.
        logits: ``(M, K, P)`` or ``(M, K, R, R)``, mask logits of the decoder, None with ``rgb``.
        size: R.
        index: int64 ``(P,)``, which pixels of R x R were decoded; None for all.
        hidden: bool ``(B, T, K)``, entries that the temporal transformer had to predict; None for
            nothing.
        features: ``(B, T, C, h', w')``, frozen, of any grid; None if no loss reads them.
    """

    slots: Tensor
    slots_corrected: Tensor
    attn: Tensor
    rgb: Tensor | None = None
    logits: Tensor | None = None
    size: int = 0
    index: Tensor | None = None
    hidden: Tensor | None = None
    features: Tensor | None = None


class SlotCriterion(nn.Module):
    """Weighs the losses of slots, masks and reconstruction.

    Args:
        weights: of :data:`LOSSES`; those left out are 0, and what weighs 0 is not computed.
        ramps: see :class:`LossSchedule`.
        compose: masks of the reconstruction: ``"attn"``, ``"decoder"`` or ``"both"``.
        attn_weight: of the reconstruction by attention in ``"both"``.
        detach_decoder: let the reconstruction give attention no gradient. The slots that are drawn
            must be detached by the caller.
        masks: ``"attn"`` at the token grid or ``"decoder"``: what entropy, coverage and appearance
            look at.
        scope: of the mean colours and features, ``"frame"`` or ``"clip"``.
        pos_weight: of coordinates beside colours or features; it can have ramps, too.
        luma: of brightness beside chroma in the appearance; 1 compares RGB as it is.
        background: if above 0, slot 0 is the background: its positions cost this much, wherever
            they are.

    Raises:
        ValueError: for an unknown name, a negative weight or settings that contradict each other.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        ramps: Sequence[Sequence[str | float]] = (),
        compose: str = "attn",
        attn_weight: float = 0.3,
        detach_decoder: bool = False,
        masks: str = "attn",
        scope: str = "frame",
        pos_weight: float = 0.0,
        luma: float = 1.0,
        background: float = 0.0,
    ) -> None:
        super().__init__()
        for value, choices in ((compose, COMPOSITIONS), (masks, LOSS_MASKS), (scope, SCOPES)):
            if value not in choices:
                raise ValueError(f"{value!r} is none of {', '.join(choices)}")
        unknown = set(weights) - set(LOSSES)
        if unknown:
            raise ValueError(f"there is no loss {sorted(unknown)[0]!r} among {', '.join(LOSSES)}")
        if luma < 0 or background < 0:
            raise ValueError(f"LUMA {luma} and BACKGROUND {background} cannot be negative")
        constant = dict.fromkeys(LOSSES, 0.0) | dict(weights) | {_POS_WEIGHT: pos_weight}
        self.schedule = LossSchedule(constant, ramps)
        if not any(map(self.schedule.is_used, LOSSES)):
            raise ValueError(f"every weight is 0; set one of {', '.join(LOSSES)}")
        self.compose, self.attn_weight = compose, attn_weight
        self.detach_decoder = detach_decoder
        self.masks, self.scope = masks, scope
        self.luma, self.background = luma, background
        if masks == "decoder" and detach_decoder and any(map(self.schedule.is_used, _OF_MASKS)):
            raise ValueError(
                "MASKS decoder with DETACH_DECODER would shape the decoder alone; set MASKS attn"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SlotCriterion:
        """Reads ``MODEL.SLOT_BERT``.

        Raises:
            ConfigError: if a value is out of range, names the key.
        """
        node, loss = cfg.MODEL.SLOT_BERT, cfg.MODEL.SLOT_BERT.LOSS
        weights = {
            "RECONSTRUCTION": loss.RECONSTRUCTION,
            "ORTHOGONALITY": loss.ORTHOGONALITY,
            "ENTROPY": loss.ENTROPY,
            "COVERAGE": loss.COVERAGE,
            "APPEARANCE": loss.APPEARANCE,
            "FEATURES": loss.FEATURES,
            "FEATURE_APPEARANCE": loss.FEATURE_APPEARANCE,
            "DISTILLATION": loss.DISTILLATION,
            "MASKED_SLOTS": loss.MASKED_SLOTS,
            "TIME_CONTRAST": loss.TIME_CONTRAST,
            "FRAME_CONTRAST": loss.FRAME_CONTRAST,
        }
        if loss.BACKGROUND and node.ATTENTION.INIT != "learned":
            raise ConfigError(
                f"{_KEY}.LOSS.BACKGROUND makes slot 0 the background, but with ATTENTION.INIT "
                f"{node.ATTENTION.INIT} any slot may be the first; set INIT learned or BACKGROUND 0"
            )
        try:
            return cls(
                weights,
                ramps=loss.SCHEDULE,
                compose=node.COMPOSE,
                attn_weight=node.ATTN_REC,
                detach_decoder=node.DETACH_DECODER,
                masks=loss.MASKS,
                scope=loss.SCOPE,
                pos_weight=loss.POS_WEIGHT,
                luma=loss.LUMA,
                background=loss.BACKGROUND,
            )
        except ValueError as error:
            raise ConfigError(f"{_KEY}.LOSS, COMPOSE: {error}") from error

    def draws(self, progress: float) -> bool:
        """Tells whether a loss reads what the decoder draws, at a fraction of the run."""
        weights = self.schedule.at(progress)
        names = (*_OF_DECODER, *_OF_MASKS) if self.masks == "decoder" else _OF_DECODER
        return any(weights[name] > 0 for name in names)

    @property
    def draws_features(self) -> bool:
        """Whether the decoder is to draw features beside colours."""
        return self.schedule.is_used("FEATURES")

    @property
    def uses_features(self) -> bool:
        """Whether a loss ever reads features of the frames."""
        return self.draws_features or self.schedule.is_used("FEATURE_APPEARANCE")

    def forward(
        self, outputs: SlotOutputs, video: Tensor, progress: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Gives the losses that count now, and figures for the log.

        Args:
            outputs: of the model.
            video: ``(B, T, 3, H, W)`` in [0, 1], of the size that the encoder saw.
            progress: fraction of the run that is done.

        Returns:
            The weighted losses by name, ``loss_appearance`` for example, and ``loss_idle``, 0,
            where none teaches anything yet. And without gradients ``unweighted/appearance`` and
            ``weight/appearance``.
        """
        batch = _Batch(outputs, video, self.detach_decoder)
        weights = self.schedule.at(progress)
        terms = self._terms(batch, weights[_POS_WEIGHT])
        losses, figures = {}, {}
        for key, weight in weights.items():
            if weight > 0:
                figures[f"weight/{key.lower()}"] = outputs.attn.new_tensor(weight)
            if weight > 0 and key in terms:
                value = terms[key]()
                losses[f"loss_{key.lower()}"] = weight * value
                figures[f"unweighted/{key.lower()}"] = value.detach()
        # Every ramp may start at 0, and what still counts may only reach parts that rest.
        if not any(loss.requires_grad for loss in losses.values()):
            losses["loss_idle"] = outputs.slots.sum() * 0.0
        return losses, figures

    def _terms(self, batch: _Batch, pos_weight: float) -> dict[str, Callable[[], Tensor]]:
        o = batch.outputs
        return {
            "RECONSTRUCTION": lambda: self._reconstruction(batch, batch.rgb, batch.target),
            "ORTHOGONALITY": lambda: orthogonality_loss(o.slots),
            "ENTROPY": lambda: entropy_loss(self._masks(batch)),
            "COVERAGE": lambda: coverage_loss(self._masks(batch)),
            "APPEARANCE": lambda: self._appearance(
                batch, weigh_luma(self._at_masks(batch, batch.video), self.luma), pos_weight
            ),
            "FEATURES": lambda: self._reconstruction(
                batch, batch.drawn_features, batch.at_pixels(batch.features.flatten(0, 1))
            ),
            "FEATURE_APPEARANCE": lambda: self._appearance(
                batch,
                self._at_masks(batch, batch.features) / batch.features.shape[2] ** 0.5,
                pos_weight,
            ),
            "DISTILLATION": lambda: distillation_loss(batch.logits, batch.attn),
            "MASKED_SLOTS": lambda: _masked_slots(o),
            "TIME_CONTRAST": lambda: time_contrast(o.slots_corrected),
            "FRAME_CONTRAST": lambda: frame_contrast(o.slots),
        }

    def _reconstruction(self, batch: _Batch, drawn: Tensor, target: Tensor) -> Tensor:
        total = target.new_zeros(())
        if self.compose != "attn":
            total = total + F.mse_loss(compose(drawn, batch.masks), target)
        if self.compose != "decoder":
            masks = without_hidden(batch.attn, batch.masks, batch.hidden_frames)
            share = self.attn_weight if self.compose == "both" else 1.0
            total = total + share * F.mse_loss(compose(drawn, masks), target)
        return total

    def _masks(self, batch: _Batch) -> Tensor:
        if self.masks == "attn":
            return batch.outputs.attn.flatten(-2)
        return batch.masks.unflatten(0, batch.video.shape[:2])

    def _appearance(self, batch: _Batch, values: Tensor, pos_weight: float) -> Tensor:
        """Compares ``(B, T, C, P)`` and coordinates within masks."""
        masks = self._masks(batch)
        loss = appearance_loss(masks, values, scope=self.scope)
        if not pos_weight:
            return loss
        size, index = self._grid(batch)
        places = cell_centres(*size, device=masks.device)  # (P, 2)
        places = places if index is None else places[index]
        return loss + pos_weight**2 * position_loss(masks, places, background=self.background)

    def _at_masks(self, batch: _Batch, maps: Tensor) -> Tensor:
        """Gives maps ``(B, T, C, H, W)`` where masks are, ``(B, T, C, P)``."""
        size, index = self._grid(batch)
        flat = resize_maps(maps, size).flatten(-2)
        return flat if index is None else flat[..., index]

    def _grid(self, batch: _Batch) -> tuple[tuple[int, int], Tensor | None]:
        """Gives the grid of the masks, and which of its positions there are; None for all."""
        o = batch.outputs
        if self.masks == "decoder":
            return (o.size, o.size), o.index
        return (o.attn.shape[-2], o.attn.shape[-1]), None


class _Batch:
    """Outputs and target of a step at the decoded positions, each computed when first read."""

    def __init__(self, outputs: SlotOutputs, video: Tensor, detach_attn: bool) -> None:
        self.outputs, self.video, self.detach_attn = outputs, video, detach_attn

    @property
    def rgb(self) -> Tensor:
        """What slots draw, ``(M, K, 3, P)``."""
        return self._drawn[:, :, :_RGB]

    @property
    def drawn_features(self) -> Tensor:
        """Features that slots draw, ``(M, K, C, P)``."""
        return self._drawn[:, :, _RGB:]

    @property
    def features(self) -> Tensor:
        """Features of the frames, ``(B, T, C, h', w')``."""
        assert self.outputs.features is not None
        return self.outputs.features

    @functools.cached_property
    def logits(self) -> Tensor:
        """Mask logits of the decoder, ``(M, K, P)``."""
        assert self.outputs.logits is not None
        return self.outputs.logits.reshape(*self.outputs.logits.shape[:2], -1)

    @functools.cached_property
    def masks(self) -> Tensor:
        """Masks of the decoder, ``(M, K, P)``."""
        return decoder_masks(self.logits)

    @functools.cached_property
    def attn(self) -> Tensor:
        """Masks of attention, ``(M, K, P)``."""
        attn = self.outputs.attn.detach() if self.detach_attn else self.outputs.attn
        return self.at_pixels(attn.flatten(0, 1))

    @functools.cached_property
    def target(self) -> Tensor:
        """The frames, ``(M, 3, P)``."""
        return self.at_pixels(self.video.flatten(0, 1))

    @property
    def hidden_frames(self) -> Tensor | None:
        """Frames of which anything was hidden, bool ``(M,)``."""
        hidden = self.outputs.hidden
        return None if hidden is None else hidden.any(-1).flatten()

    @functools.cached_property
    def _drawn(self) -> Tensor:
        assert self.outputs.rgb is not None
        return self.outputs.rgb.reshape(*self.outputs.rgb.shape[:3], -1)

    def at_pixels(self, maps: Tensor) -> Tensor:
        """Gives maps ``(M, ..., H, W)`` at the decoded pixels, ``(M, ..., P)``."""
        size, index = self.outputs.size, self.outputs.index
        flat = resize_maps(maps, (size, size)).flatten(-2)
        return flat if index is None else flat[..., index]


def _masked_slots(outputs: SlotOutputs) -> Tensor:
    hidden = outputs.hidden
    if hidden is None:
        hidden = torch.zeros_like(outputs.slots[..., 0], dtype=torch.bool)
    return masked_slot_loss(outputs.slots, outputs.slots_corrected, hidden)
