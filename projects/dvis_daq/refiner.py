"""Temporal refiner of DVIS-DAQ: all frames and all instances of a video read each other.

Shapes: B batch, N instances, T frames, Q frame queries, C channels, K classes, L layers,
h w the mask features' size.

Source: DVIS (Zhang et al., ICCV 2023), temporal refiner; DVIS-DAQ (Zhou et al., 2024).
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.layers.attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from vidseg.layers.mlp import MLP
from vidseg.layers.onednn import Linear

__all__ = ["TemporalRefiner"]


class TemporalRefiner(nn.Module):
    """Refines the query sequences of a whole video's instances.

    Args:
        hidden_dim: C.
        feedforward_dim: hidden width of the FFN blocks.
        num_heads: attention heads.
        num_layers: L.
        mask_dim: channels of the mask features.
        num_classes: K, without "no object".
        use_local_attention: add a short convolution along time to every layer.
        use_padding_mask: frames outside an instance's life are neither read by time attention
            nor counted by the class average. Published checkpoints were trained without.
    """

    def __init__(
        self,
        *,
        hidden_dim: int,
        feedforward_dim: int,
        num_heads: int,
        num_layers: int,
        mask_dim: int,
        num_classes: int,
        use_local_attention: bool = False,
        use_padding_mask: bool = False,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.feedforward_dim = feedforward_dim
        self.use_padding_mask = use_padding_mask
        self.transformer_obj_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.transformer_time_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, feedforward_dim) for _ in range(num_layers)
        )
        if use_local_attention:
            self.conv_short_aggregate_layers = nn.ModuleList(
                _short_convolution(hidden_dim) for _ in range(num_layers)
            )
            self.conv_norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(num_layers))
        self.use_local_attention = use_local_attention
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.class_embed = Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)
        self.activation_proj = Linear(hidden_dim, 1)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config."""
        return {
            "hidden_dim": cfg.MODEL.MASK_FORMER.HIDDEN_DIM,
            "feedforward_dim": cfg.MODEL.MASK_FORMER.DIM_FEEDFORWARD,
            "num_heads": cfg.MODEL.MASK_FORMER.NHEADS,
            "num_layers": cfg.MODEL.REFINER.DECODER_LAYERS,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "use_local_attention": cfg.MODEL.VIDEO_HEAD.USE_LOCAL_ATTN,
            "use_padding_mask": cfg.MODEL.REFINER.USE_PADDING_MASK,
        }

    def forward(
        self, instances: Tensor, frame_embeds: Tensor, padding: Tensor | None = None
    ) -> list[Tensor]:
        """Runs all layers.

        Args:
            instances: query sequences, ``(B, N, T, C)``.
            frame_embeds: embeddings of the frame queries, ``(B, T, Q, C)``.
            padding: bool ``(B, N, T)``, True outside an instance's life; read only if the
                refiner was built with ``use_padding_mask``.

        Returns:
            Output of every layer, L times ``(B, N, T, C)``, before the norm.
        """
        batch, num_instances, num_frames = instances.shape[:3]
        memory = rearrange(frame_embeds, "b t q c -> (b t) q c")
        blocked = self.blocked(padding)
        if blocked is not None:
            blocked = rearrange(blocked, "b n t -> (b n) t")
        outputs = []
        x = instances
        for layer in range(self.num_layers):
            x = self.along_time(layer, rearrange(x, "b n t c -> (b n) t c"), blocked)
            x = rearrange(x, "(b n) t c -> (b t) n c", b=batch, n=num_instances)
            x = self.within_frames(layer, x, memory)
            x = rearrange(x, "(b t) n c -> b n t c", b=batch, t=num_frames)
            outputs.append(x)
        return outputs

    def along_time(self, layer: int, x: Tensor, blocked: Tensor | None) -> Tensor:
        """Runs the first half of a layer, in which the frames of an instance read each other.

        Args:
            layer: number of the layer.
            x: any instances, ``(n, T, C)``.
            blocked: rows of :meth:`blocked`, ``(n, T)``.
        """
        x = self.transformer_time_self_attention_layers[layer](x, key_padding_mask=blocked)
        if self.use_local_attention:
            near = self.conv_short_aggregate_layers[layer](x.transpose(1, 2)).transpose(1, 2)
            x = self.conv_norms[layer](near + x)
        return x

    def within_frames(self, layer: int, x: Tensor, memory: Tensor) -> Tensor:
        """Runs the second half, in which the instances of a frame read each other and the frame.

        Args:
            layer: number of the layer.
            x: all instances in any frames, ``(t, N, C)``.
            memory: embeddings of the queries of those frames, ``(t, Q, C)``.
        """
        x = self.transformer_obj_self_attention_layers[layer](x)
        x = self.transformer_cross_attention_layers[layer](x, memory)
        return self.transformer_ffn_layers[layer](x)

    def frame_weights(self, queries: Tensor, padding: Tensor | None = None) -> Tensor:
        """Gives the share of each frame in the class of an instance, ``(B, N, T)``, sum 1.

        Args:
            queries: a layer's output, ``(B, N, T, C)``.
            padding: as in :meth:`forward`.
        """
        return self._frame_weights(self.decoder_norm(queries), padding)

    def classify(self, queries: Tensor, padding: Tensor | None = None) -> Tensor:
        """Gives one set of class logits per instance, ``(B, N, K+1)``, valid for all frames.

        Args: as :meth:`frame_weights`.
        """
        normed = self.decoder_norm(queries)
        weights = self._frame_weights(normed, padding).to(normed.dtype)
        return self.class_embed(torch.einsum("bnt,bntc->bnc", weights, normed))

    def segment(self, queries: Tensor, mask_features: Tensor) -> Tensor:
        """Gives mask logits.

        Args:
            queries: rows of a layer's output that are wanted, ``(B, N, T, C)``.
            mask_features: raw, of the same frames, ``(B, T, C, h, w)``.

        Returns:
            ``(B, N, T, h, w)``.
        """
        embedding = self.mask_embed(self.decoder_norm(queries))
        return torch.einsum("bntc,btchw->bnthw", embedding, mask_features)

    def blocked(self, padding: Tensor | None) -> Tensor | None:
        """Gives the frames that time attention must not read, bool like ``padding``, if any."""
        if not self.use_padding_mask or padding is None:
            return None
        everywhere = padding.all(dim=-1, keepdim=True)
        return padding & ~everywhere

    def _frame_weights(self, normed: Tensor, padding: Tensor | None) -> Tensor:
        return self.share_out(self.activation_proj(normed)[..., 0].float(), padding)

    def activation(self, queries: Tensor) -> Tensor:
        """Gives what frame weights are made of, float32 ``(...)``, for queries ``(..., C)``."""
        return self.activation_proj(self.decoder_norm(queries))[..., 0].float()

    def share_out(self, activation: Tensor, padding: Tensor | None) -> Tensor:
        """Turns activations ``(..., T)`` into shares of the frames; ``padding`` likewise."""
        if self.use_padding_mask and padding is not None:
            everywhere = padding.all(dim=-1, keepdim=True)
            activation = activation.masked_fill(padding & ~everywhere, float("-inf"))
        return activation.softmax(dim=-1)


def _short_convolution(channels: int) -> nn.Sequential:
    def along_time(kernel_size: int) -> nn.Conv1d:
        return nn.Conv1d(channels, channels, kernel_size, padding="same", padding_mode="replicate")

    return nn.Sequential(along_time(5), nn.ReLU(inplace=True), along_time(3))
