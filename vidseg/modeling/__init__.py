"""Networks: registries and builders, backbones, decoders, meta-architectures, losses."""

from . import backbone, meta_arch, pixel_decoder, sem_seg_head, transformer_decoder
from .build import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    TRANSFORMER_DECODER_REGISTRY,
    build_backbone,
    build_model,
    build_sem_seg_head,
    build_transformer_decoder,
    construct,
    resolve_device,
)

__all__ = [
    "BACKBONE_REGISTRY",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "TRANSFORMER_DECODER_REGISTRY",
    "backbone",
    "build_backbone",
    "build_model",
    "build_sem_seg_head",
    "build_transformer_decoder",
    "construct",
    "meta_arch",
    "pixel_decoder",
    "resolve_device",
    "sem_seg_head",
    "transformer_decoder",
]
