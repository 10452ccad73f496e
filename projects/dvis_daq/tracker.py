"""Tracker of DVIS-DAQ: dynamic anchor queries and the slot branch (the network, without state).

What is remembered between frames lives in ``memory.py``; ``inference.py`` drives both.

Shapes: Q frame queries, P live tracks, S background slots, L layers, C channels, K classes,
n any number of rows, h w the mask features' size (stride 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.layers.attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from vidseg.layers.mlp import MLP
from vidseg.layers.onednn import Conv2d, Linear
from vidseg.layers.recording import without_autocast

from .slots import SLOT_ASSIGNMENTS, SlotCrossAttentionLayer, assign_slot_queries

__all__ = ["Frame", "LiveTracks", "VideoInstanceCutter"]


@dataclass
class Frame:
    """What the segmenter says about one frame.

    Attributes:
        embeds: query embeddings after the decoder's norm, ``(Q, C)``.
        mask_features: raw, ``(C, h, w)``; position codes average them.
        projected: ``VideoInstanceCutter.project(mask_features)``, ``(C, h, w)``; masks use them.
        masks: mask logits of the frame queries, ``(Q, h, w)``.
    """

    embeds: Tensor
    mask_features: Tensor
    projected: Tensor
    masks: Tensor


@dataclass
class LiveTracks:
    """What the tracker needs to know of the live tracks: ``embeds`` and ``positions`` (P, C)."""

    embeds: Tensor
    positions: Tensor


class VideoInstanceCutter(nn.Module):
    """Carries the tracks to the next frame and finds new objects, one anchor per frame query.

    The module holds weights only: every method is a function of its arguments.

    Args:
        hidden_dim: C, also the width of the mask features.
        feedforward_dim: hidden width of the FFN blocks.
        num_heads: attention heads.
        num_layers: L, of the anchor decoder and of the slot branch.
        num_classes: K, without "no object".
        num_new_instances: anchors per frame; must equal the number of frame queries.
        num_slots: S.
        slot_assignment: see ``assign_slot_queries``.
        anchors_from_queries: an anchor starts from the content of its frame query, not only from
            its position. Published checkpoints were trained without.

    Source: DVIS-DAQ (Zhou et al., 2024), dynamic anchor queries and emergence/disappearance.
    """

    def __init__(
        self,
        *,
        hidden_dim: int,
        feedforward_dim: int,
        num_heads: int,
        num_layers: int,
        num_classes: int,
        num_new_instances: int,
        num_slots: int = 5,
        slot_assignment: str = "optimal",
        anchors_from_queries: bool = False,
    ) -> None:
        super().__init__()
        self.num_new_instances = num_new_instances
        self.slot_assignment = slot_assignment
        self.anchors_from_queries = anchors_from_queries
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, feedforward_dim) for _ in range(num_layers)
        )
        self.slot_cross_attention_layers = nn.ModuleList(
            SlotCrossAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.slot_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, feedforward_dim) for _ in range(num_layers)
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.class_embed = Linear(hidden_dim, num_classes + 1)
        self.pos_embed = MLP(hidden_dim, hidden_dim, hidden_dim, 3)
        self.mask_embed = MLP(hidden_dim, hidden_dim, hidden_dim, 3)
        self.mask_feature_proj = Conv2d(hidden_dim, hidden_dim, kernel_size=1)
        self.new_ins_embeds = nn.Embedding(1, hidden_dim)
        self.bg_slots = nn.Embedding(num_slots, hidden_dim)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config.

        Raises:
            ConfigError: if NUM_NEW_INS or MASK_DIM does not fit the frame decoder, or NHEADS the
                width, or there is no such SLOT_ASSIGNMENT.
        """
        former, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.VIDEO_HEAD
        if head.NUM_NEW_INS != former.NUM_OBJECT_QUERIES:
            raise ConfigError(
                f"MODEL.VIDEO_HEAD.NUM_NEW_INS is {head.NUM_NEW_INS} and"
                f" MODEL.MASK_FORMER.NUM_OBJECT_QUERIES {former.NUM_OBJECT_QUERIES}: every anchor"
                " takes the position of one frame query, so set both to the same number"
            )
        if former.HIDDEN_DIM != cfg.MODEL.SEM_SEG_HEAD.MASK_DIM:
            raise ConfigError(
                f"MODEL.MASK_FORMER.HIDDEN_DIM is {former.HIDDEN_DIM} and"
                f" MODEL.SEM_SEG_HEAD.MASK_DIM {cfg.MODEL.SEM_SEG_HEAD.MASK_DIM}: the tracker"
                " reads the mask features at its own width, so set both to the same number"
            )
        num_heads = cfg.MODEL.TRACKER.NHEADS
        if num_heads < 0 or (num_heads and former.HIDDEN_DIM % num_heads):
            raise ConfigError(
                f"MODEL.TRACKER.NHEADS is {num_heads} and MODEL.MASK_FORMER.HIDDEN_DIM"
                f" {former.HIDDEN_DIM}: set NHEADS to a divisor of {former.HIDDEN_DIM}, or 0 for"
                " as many heads as the frame decoder has"
            )
        if head.SLOT_ASSIGNMENT not in SLOT_ASSIGNMENTS:
            raise ConfigError(
                f"MODEL.VIDEO_HEAD.SLOT_ASSIGNMENT {head.SLOT_ASSIGNMENT!r} is unknown; set one of"
                f" {', '.join(SLOT_ASSIGNMENTS)}"
            )
        return {
            "hidden_dim": former.HIDDEN_DIM,
            "feedforward_dim": former.DIM_FEEDFORWARD,
            "num_heads": num_heads or former.NHEADS,
            "num_layers": cfg.MODEL.TRACKER.DECODER_LAYERS,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "num_new_instances": head.NUM_NEW_INS,
            "num_slots": head.NUM_SLOTS,
            "slot_assignment": head.SLOT_ASSIGNMENT,
            "anchors_from_queries": cfg.MODEL.TRACKER.ANCHORS_FROM_QUERIES,
        }

    def project(self, mask_features: Tensor) -> Tensor:
        """Gives the features ``(..., C, h, w)`` that mask embeddings are multiplied with."""
        flat = mask_features.reshape(-1, *mask_features.shape[-3:])  # (frames, C, h, w)
        return self.mask_feature_proj(flat).reshape(mask_features.shape)

    def mask_position(self, masks: Tensor, mask_features: Tensor) -> Tensor:
        """Gives position codes: the MLP of the mean feature under each mask.

        Args:
            masks: logits ``(n, h, w)``; pixels above probability 0.5 count.
            mask_features: raw, ``(C, h, w)``.

        Returns:
            ``(n, C)``; an empty mask gives the code of a zero feature.
        """
        inside = (masks > 0).flatten(1).float()  # (n, hw)
        with without_autocast(masks.device):
            # A sum over thousands of pixels leaves the range of half precision.
            total = inside @ mask_features.float().flatten(1).T  # (n, C)
            # Not a tiny number added: the optimiser of ONNX files takes that for nothing.
            mean = total / inside.sum(dim=1, keepdim=True).clamp(min=1)
        return self.pos_embed(mean.to(mask_features.dtype))

    def first_frame(self, frame: Frame, *, last_only: bool = False) -> Tensor:
        """Runs the frame queries through the decoder; no position codes.

        Returns:
            ``(L+1, Q, C)``: the queries themselves, then every layer's output; with ``last_only``
            that of the last layer, ``(1, Q, C)``.
        """
        return self.decode(
            frame.embeds, frame.embeds, query_pos=None, memory_pos=None, last_only=last_only
        )

    def next_frame(self, frame: Frame, tracks: LiveTracks, *, last_only: bool = False) -> Tensor:
        """Runs the tracks and the anchors of new objects through the decoder.

        Returns:
            ``(L+1, P+Q, C)``: initial queries, then every layer's output; tracks come first. With
            ``last_only`` that of the last layer, ``(1, P+Q, C)``.
        """
        code = self.mask_position(frame.masks, frame.mask_features)  # (Q, C)
        anchors = self.new_ins_embeds.weight.expand(self.num_new_instances, -1)
        if self.anchors_from_queries:
            anchors = anchors + frame.embeds
        positions = torch.cat([tracks.positions, code.to(tracks.positions.dtype)])
        return self.decode(
            torch.cat([tracks.embeds, anchors.to(tracks.embeds.dtype)]),
            frame.embeds,
            query_pos=positions,
            memory_pos=code,
            last_only=last_only,
        )

    def slots(
        self,
        frame: Frame,
        tracks: LiveTracks,
        query_table: Tensor,
        *,
        hidden: Tensor | None = None,
        empty: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Runs the slot branch, which says whether tracked objects are still there.

        Args:
            frame: the current frame.
            tracks: live tracks, possibly none.
            query_table: query features of the frame decoder, ``(Q, C)``.
            hidden: bool ``(Q,)``, frame queries that the slots must not see (training).
            empty: bool ``(P,)``, rows of ``tracks`` without a track; their output means nothing.
            last_only: whether the last layer's output is enough.

        Returns:
            ``(L, P+S, C)``, every layer's output, or ``(1, P+S, C)``; tracks come first.
        """
        background = self.bg_slots.weight.to(tracks.embeds.dtype)
        content = torch.cat([tracks.embeds, background])  # (P+S, C)
        keys = torch.cat([tracks.positions, background])
        if empty is not None:
            empty = torch.cat([empty, empty.new_zeros(len(background))])
        start = assign_slot_queries(
            content, query_table, assignment=self.slot_assignment, empty=empty
        )
        slots = query_table[start].to(content.dtype)
        outputs: list[Tensor] = []
        for attention, ffn in zip(
            self.slot_cross_attention_layers, self.slot_ffn_layers, strict=True
        ):
            slots = attention(
                slots, frame.embeds, content=content, keys=keys, hidden=hidden, empty=empty
            )
            slots = ffn(slots[None])[0]
            if not last_only:
                outputs.append(slots)
        return torch.stack(outputs or [slots])

    def normed(self, queries: Tensor) -> Tensor:
        """Gives what the prediction heads read, same shape."""
        return self.decoder_norm(queries)

    def classify(self, queries: Tensor) -> Tensor:
        """Gives class logits ``(..., n, K+1)`` of queries ``(..., n, C)``."""
        return self.class_embed(self.normed(queries))

    def segment(self, queries: Tensor, projected: Tensor) -> Tensor:
        """Gives mask logits ``(..., n, h, w)`` of queries ``(..., n, C)`` on one frame."""
        embedding = self.mask_embed(self.normed(queries))
        return torch.einsum("...nc,chw->...nhw", embedding, projected)

    def predict(self, queries: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Gives class logits ``(..., n, K+1)`` and mask logits ``(..., n, h, w)``."""
        return self.classify(queries), self.segment(queries, projected)

    def decode(
        self,
        queries: Tensor,
        memory: Tensor,
        *,
        query_pos: Tensor | None,
        memory_pos: Tensor | None,
        empty: Tensor | None = None,
        last_only: bool,
    ) -> Tensor:
        """Lets queries read the frame and one another, layer by layer.

        Args:
            queries: ``(n, C)``.
            memory: what the frame queries say, ``(Q, C)``.
            query_pos: position codes of the queries, ``(n, C)``.
            memory_pos: those of the frame queries, ``(Q, C)``.
            empty: bool ``(n,)``, rows that no other reads; their output means nothing.
            last_only: whether the last layer's output is enough.

        Returns:
            ``(L+1, n, C)``, or ``(1, n, C)`` with ``last_only``.
        """
        x, memory = queries[None], memory[None]
        del queries  # with hundreds of tracks every copy counts
        query_pos = None if query_pos is None else query_pos[None]
        memory_pos = None if memory_pos is None else memory_pos[None]
        outputs = [] if last_only else [x]
        for cross, own, ffn in zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        ):
            x = cross(x, memory, query_pos=query_pos, memory_pos=memory_pos)
            x = own(x, key_padding_mask=None if empty is None else empty[None])
            x = ffn(x)
            if not last_only:
                outputs.append(x)
        return torch.cat(outputs or [x])  # (L+1 or 1, n, C)
