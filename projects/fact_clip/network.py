"""The FACT network: one video's features to what every block makes of them.

Shapes: T frames, D input width, M tokens, A token width, H feature width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import BlockOutput, build_block
from .heads import ClassHead
from .masking import mask_channels, mask_time
from .settings import FactSettings
from .sinusoid import SinusoidTable

__all__ = ["FactNetwork"]

_FRAME_ROWS = 10000
_TRANSCRIPT_ROWS = 1000


class FactNetwork(nn.Module):
    """Frames and action tokens, updated in turn by a chain of blocks.

    Args:
        settings: of blocks, tokens and masking.
        input_dim: D.
        n_classes: C, background included.

    Source: FACT (Lu and Elhamifar, CVPR 2024); names of weights are those of its code.
    """

    def __init__(self, settings: FactSettings, input_dim: int, n_classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.input_dim, self.n_classes = input_dim, n_classes
        first = settings.blocks[0]
        self.frame_pe = SinusoidTable(first.hid_dim, _FRAME_ROWS if settings.fpos else 0)
        if settings.trans:
            self.action_pe = SinusoidTable(first.a_dim, _TRANSCRIPT_ROWS)
            self.build_embedding(first.a_dim)
        else:
            self.action_query = nn.Parameter(torch.randn(settings.ntoken, 1, first.a_dim))
        head = self.build_head()
        self.block_list = nn.ModuleList(
            build_block(block, input_dim, head) for block in settings.blocks
        )

    @property
    def head(self) -> ClassHead:
        """What all blocks read class logits with."""
        head = self.block_list[0].head
        assert isinstance(head, ClassHead)
        return head

    def build_head(self) -> ClassHead:
        """Makes what reads class logits off features; a network of other classes overrides it."""
        return ClassHead(self.n_classes)

    def build_embedding(self, width: int) -> None:
        """Adds the weights of :meth:`embed`, ``width`` channels; to be overridden with it."""
        self.action_embed = nn.Embedding(self.n_classes, width)

    def embed(self, transcript: Tensor) -> Tensor:
        """Embeds the classes of a transcript: ``(M,)`` int64 to ``(M, A)``."""
        return self.action_embed(transcript)

    def run_blocks(self, features: Tensor, transcript: Tensor | None = None) -> list[BlockOutput]:
        """Runs one video through the blocks.

        Args:
            features: ``(T, D)``.
            transcript: classes of the segments in order, ``(M,)`` int64; if ``settings.trans``.

        Returns:
            One output per block.

        Raises:
            ValueError: if there are no frames, they are not D wide, or the transcript is missing
                or empty.
        """
        if features.dim() != 2 or features.shape[1] != self.input_dim or len(features) == 0:
            raise ValueError(
                f"features have the shape {tuple(features.shape)}, not (frames, {self.input_dim})"
            )
        frames = self._mask(features) if self.training else features
        frame_pos = self.frame_pe(len(features)) if self.settings.fpos else None
        tokens, token_pos = self._tokens(transcript)
        outputs: list[BlockOutput] = []
        for block in self.block_list:
            output = block(frames, tokens, frame_pos, token_pos)
            frames, tokens = output.frame_features, output.token_features
            outputs.append(output)
        return outputs

    def _mask(self, features: Tensor) -> Tensor:
        if self.settings.cmr:
            features = mask_channels(features, self.settings.cmr)
        spans = self.settings.time_masking
        if spans is not None:
            features = mask_time(features, span=spans.t, share=spans.p, count=spans.m)
        if self.settings.noise:
            features = features + self.settings.noise * torch.randn_like(features)
        return features

    def _tokens(self, transcript: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Gives features ``(M, A)`` of the tokens, and their positions if these are learnt."""
        if not self.settings.trans:
            query = self.action_query[:, 0]
            return torch.zeros_like(query), query
        if transcript is None or len(transcript) == 0:
            raise ValueError("FACT.trans is on, and the video has no transcript")
        embedded = self.embed(transcript)
        return embedded + self.action_pe(len(transcript)).to(embedded.dtype), None
