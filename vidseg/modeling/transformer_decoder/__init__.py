"""Decoders that turn object queries and feature maps into classes and masks."""

from .masked import DecoderOutput, MaskedTransformerDecoder

__all__ = ["DecoderOutput", "MaskedTransformerDecoder"]
