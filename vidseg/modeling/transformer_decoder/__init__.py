"""Decoders that turn object queries and feature maps into classes and masks."""

from .explaining import last_attention
from .masked import DecoderOutput, MaskedTransformerDecoder

__all__ = ["DecoderOutput", "MaskedTransformerDecoder", "last_attention"]
