"""The masked-attention decoder of one frame (Mask2Former, Cheng et al., CVPR 2022).

Frames are independent here, so a batch may hold frames of any clips.

Shapes: B frames, Q queries, C channels, K classes, h w mask pixels (stride 4), M tokens of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.layers import (
    MLP,
    Conv2d,
    CrossAttentionLayer,
    FFNLayer,
    Linear,
    SelfAttentionLayer,
    sine_position,
)
from vidseg.modeling.build import TRANSFORMER_DECODER_REGISTRY, check_num_heads

__all__ = ["DecoderOutput", "MaskedTransformerDecoder"]

_NUM_LEVELS = 3


@dataclass
class DecoderOutput:
    """What the decoder says about B frames.

    Args:
        logits: class logits ``(B, Q, K + 1)``, the last one is "no object".
        masks: mask logits ``(B, Q, h, w)``.
        embeds: query features after the final norm, ``(B, Q, C)``.
        embeds_without_norm: query features before it, ``(B, Q, C)``.
        mask_features: pixel embeddings ``(B, C_mask, h, w)``, passed through.
        reid_embeds: ``(B, Q, C)`` of the re-identification head, if there is one.
        aux: (logits, masks) of the earlier predictions, first to last; empty if not kept.
    """

    logits: Tensor
    masks: Tensor
    embeds: Tensor
    embeds_without_norm: Tensor
    mask_features: Tensor
    reid_embeds: Tensor | None = None
    aux: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@TRANSFORMER_DECODER_REGISTRY.register(name="MultiScaleMaskedTransformerDecoder")
@TRANSFORMER_DECODER_REGISTRY.register(name="VideoMultiScaleMaskedTransformerDecoder")
@TRANSFORMER_DECODER_REGISTRY.register(name="VideoMultiScaleMaskedTransformerDecoder_minvis")
@TRANSFORMER_DECODER_REGISTRY.register(name="VideoMultiScaleMaskedTransformerDecoder_dvis")
@TRANSFORMER_DECODER_REGISTRY.register(name="VideoMultiScaleMaskedTransformerDecoder_dvisPlus")
class MaskedTransformerDecoder(nn.Module):
    """Queries look only where their own previous mask is, level after level.

    Args:
        in_channels: channels of the feature maps.
        num_classes: foreground classes K.
        hidden_dim: width C of the queries.
        num_queries: queries Q.
        num_heads: attention heads.
        dim_feedforward: inner width of the feed-forward blocks.
        num_layers: decoder layers; one more prediction comes from the initial queries.
        mask_dim: channels of the mask features.
        pre_norm: norm before each block instead of after it.
        enforce_input_proj: project the maps even if their width fits.
        reid_hidden_dim: inner width of the re-identification head.
        reid_layers: linear layers of the re-identification head, 0 for no head.

    Source: Mask2Former, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 100,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        num_layers: int = 9,
        mask_dim: int = 256,
        pre_norm: bool = False,
        enforce_input_proj: bool = False,
        reid_hidden_dim: int = 256,
        reid_layers: int = 0,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.num_classes = num_classes
        layers = range(num_layers)
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, num_heads, pre_norm=pre_norm) for _ in layers
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, num_heads, pre_norm=pre_norm) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, dim_feedforward, pre_norm=pre_norm) for _ in layers
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(_NUM_LEVELS, hidden_dim)
        projected = in_channels != hidden_dim or enforce_input_proj
        self.input_proj = nn.ModuleList(
            _projection(in_channels, hidden_dim) if projected else nn.Sequential()
            for _ in range(_NUM_LEVELS)
        )
        self.class_embed = Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)
        self.reid_embed = (
            MLP(hidden_dim, reid_hidden_dim, hidden_dim, reid_layers) if reid_layers else None
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.MASK_FORMER`` and ``MODEL.SEM_SEG_HEAD``.

        Raises:
            ConfigError: if there are no predictions or the heads do not divide HIDDEN_DIM.
        """
        mask_former, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
        check_num_heads(cfg, "MODEL.MASK_FORMER.HIDDEN_DIM", mask_former.HIDDEN_DIM)
        if mask_former.DEC_LAYERS < 1:
            raise ConfigError(
                f"MODEL.MASK_FORMER.DEC_LAYERS is {mask_former.DEC_LAYERS}; it counts the "
                "predictions, one from the initial queries and one per layer, so set 1 or more"
            )
        return {
            "in_channels": head.CONVS_DIM,
            "num_classes": head.NUM_CLASSES,
            "hidden_dim": mask_former.HIDDEN_DIM,
            "num_queries": mask_former.NUM_OBJECT_QUERIES,
            "num_heads": mask_former.NHEADS,
            "dim_feedforward": mask_former.DIM_FEEDFORWARD,
            "num_layers": mask_former.DEC_LAYERS - 1,
            "mask_dim": head.MASK_DIM,
            "pre_norm": mask_former.PRE_NORM,
            "enforce_input_proj": mask_former.ENFORCE_INPUT_PROJ,
            "reid_hidden_dim": mask_former.REID_HIDDEN_DIM,
            "reid_layers": mask_former.NUM_REID_HEAD_LAYERS if mask_former.REID_BRANCH else 0,
        }

    def forward(
        self,
        features: Sequence[Tensor],
        mask_features: Tensor,
        *,
        keep_aux: bool | None = None,
    ) -> DecoderOutput:
        """Decodes B frames.

        Args:
            features: three maps ``(B, C_in, h_l, w_l)``, coarse to fine.
            mask_features: ``(B, C_mask, h, w)``.
            keep_aux: whether to return the earlier predictions; in training they are by default.
        """
        keep_aux = self.training if keep_aux is None else keep_aux
        memory, position = self._memories(features)
        # Resizing is linear, so the masks for the attention come from resized mask features: far
        # fewer pixels than resizing full masks, and no full masks at all where nobody asks.
        views = [
            F.interpolate(
                mask_features.detach().float(),
                size=feature.shape[-2:],
                mode="bilinear",
                align_corners=False,
            ).flatten(2)
            for feature in features
        ]  # (B, C_mask, M)
        batch = mask_features.shape[0]
        x = self.query_feat.weight.expand(batch, -1, -1)  # (B, Q, C)
        aux: list[tuple[Tensor, Tensor]] = []
        for index in range(self.num_layers):
            level = index % _NUM_LEVELS
            normed, mask_embeds = self._embed(x)
            if keep_aux:
                aux.append(self._predict(normed, mask_embeds, mask_features))
            blocked = _blocked_positions(mask_embeds.detach(), views[level])
            x = self._layer(index, x, memory[level], position[level], blocked)
        normed, mask_embeds = self._embed(x)
        logits, masks = self._predict(normed, mask_embeds, mask_features)
        reid = None if self.reid_embed is None else self.reid_embed(normed)
        return DecoderOutput(logits, masks, normed, x, mask_features, reid, aux)

    def _memories(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens ``(B, M, C)`` and position codes ``(M, C)`` of every level."""
        if len(features) != _NUM_LEVELS:
            raise ValueError(f"the decoder reads {_NUM_LEVELS} feature maps, got {len(features)}")
        memory, position = [], []
        for level, feature in enumerate(features):
            projected = self.input_proj[level](feature)
            height, width = projected.shape[-2:]
            tokens = projected.flatten(2).transpose(1, 2)
            memory.append(tokens + self.level_embed.weight[level].to(tokens.dtype))
            code = sine_position(
                height, width, tokens.shape[-1], device=tokens.device, dtype=tokens.dtype
            )
            position.append(code.flatten(1).T)
        return memory, position

    def _layer(
        self, index: int, x: Tensor, memory: Tensor, position: Tensor, blocked: Tensor
    ) -> Tensor:
        query_pos = self.query_embed.weight
        x = self.transformer_cross_attention_layers[index](
            x, memory, query_pos=query_pos, memory_pos=position, attn_mask=blocked
        )
        x = self.transformer_self_attention_layers[index](x, query_pos=query_pos)
        return self.transformer_ffn_layers[index](x)

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normed queries ``(B, Q, C)`` and mask embeddings ``(B, Q, C_mask)``, in float32."""
        with torch.autocast(device_type=x.device.type, enabled=False):
            normed = self.decoder_norm(x.to(self.decoder_norm.weight.dtype))
            return normed, self.mask_embed(normed)

    def _predict(
        self, normed: Tensor, mask_embeds: Tensor, mask_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(device_type=normed.device.type, enabled=False):
            masks = torch.einsum("bqc,bchw->bqhw", mask_embeds, mask_features.to(mask_embeds.dtype))
            return self.class_embed(normed), masks


def _blocked_positions(mask_embeds: Tensor, view: Tensor) -> Tensor:
    """Where a query must not look: outside its mask, ``(B, Q, M)``; nowhere for an empty mask."""
    with torch.autocast(device_type=view.device.type, enabled=False):
        blocked = mask_embeds @ view.to(mask_embeds.dtype) < 0
    return blocked & ~blocked.all(-1, keepdim=True)


def _projection(in_channels: int, out_channels: int) -> Conv2d:
    projection = Conv2d(in_channels, out_channels, 1)
    nn.init.kaiming_uniform_(projection.weight, a=1)
    nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
    return projection
