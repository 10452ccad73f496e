"""Feature maps of four strides from a plain DINOv2 ViT (ViT-Adapter, Chen et al., ICLR 2023).

In the variant of DVIS++ and DVIS-DAQ nothing flows from the adapter back into the ViT, so a frozen
ViT is pure inference.

Shapes: B batch, H W patches of 16 pixels, S cells of the maps of stride 8, 16 and 32, C channels.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vidseg.checkpoint import find_weights, read_state_dict
from vidseg.config import CfgNode
from vidseg.errors import ConfigError, DataError, nearest
from vidseg.layers import Conv2d, Linear, MSDeformAttn, build_norm, cell_centres
from vidseg.modeling.build import BACKBONE_REGISTRY
from vidseg.structures import ShapeSpec

from .base import Backbone
from .dinov2 import DinoVisionTransformer
from .weights import fill_backbone

__all__ = ["VITS", "D2VitAdapterDinoV2"]

logger = logging.getLogger(__name__)

VITS: dict[str, dict[str, int]] = {
    "vitb": {"width": 768, "depth": 12, "num_heads": 12},
    "vitl": {"width": 1024, "depth": 24, "num_heads": 16},
}
"""Sizes of the ViT by ``MODEL.VIT_ADAPTER.NAME``; the adapter has as many heads."""

_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
_NUM_GROUPS = len(_STRIDES)
_COARSEST = max(_STRIDES.values())
_EPS = 1e-6
_TRUNK = "vit_module."

Size = tuple[int, int]


@BACKBONE_REGISTRY.register()
class D2VitAdapterDinoV2(Backbone):
    """A convolutional stem whose maps read the tokens of a ViT after each quarter of its blocks.

    Args:
        vit: the trunk; its blocks are run in four groups of equal size.
        num_heads: heads of the deformable attention that reads the tokens.
        num_points: places that a head reads.
        stem_channels: of the stem's first map.
        ffn_ratio: hidden channels of the feed-forward parts as a share of the ViT's width.
        freeze_vit: the ViT does not train.
        finetune_groups: groups of blocks, 0 to 3, that train even so. Gradients reach a group
            through the maps that read it, not through frozen groups above it.
        use_checkpoint: compute what trains again in the backward pass instead of keeping it.
        vit_weights: file for the ViT where no other file gives its weights; "" for none.

    Shape:
        - input: ``(B, 3, height, width)`` of any size; filled up with zeros to multiples of 32
        - output: four maps ``(B, C, ceil(height / stride), ceil(width / stride))``

    Raises:
        ConfigError: for groups that do not exist.
        ValueError: if the blocks of the ViT cannot be grouped.
    """

    def __init__(
        self,
        vit: DinoVisionTransformer,
        *,
        num_heads: int,
        num_points: int = 4,
        stem_channels: int = 64,
        ffn_ratio: float = 0.25,
        freeze_vit: bool = True,
        finetune_groups: Collection[int] = (),
        use_checkpoint: bool = False,
        vit_weights: str = "",
    ) -> None:
        super().__init__()
        if len(vit.blocks) % _NUM_GROUPS:
            raise ValueError(f"{len(vit.blocks)} blocks do not make {_NUM_GROUPS} equal groups")
        wrong = [index for index in finetune_groups if not 0 <= index < _NUM_GROUPS]
        if wrong:
            raise ConfigError(
                f"MODEL.VIT_ADAPTER.FINETUNE_INDEXES names {wrong[0]}; the ViT's blocks make "
                f"{_NUM_GROUPS} groups, 0 to {_NUM_GROUPS - 1}"
            )
        width = vit.width
        self.use_checkpoint, self.vit_weights = use_checkpoint, vit_weights
        self.level_embed = nn.Parameter(torch.zeros(_NUM_GROUPS - 1, width))
        self.spm = _SpatialPrior(stem_channels, width)
        self.interactions = nn.ModuleList(
            _Interaction(
                width, num_heads, num_points, ffn_ratio, num_extra=2 * (group == _NUM_GROUPS - 1)
            )
            for group in range(_NUM_GROUPS)
        )
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        for index in range(_NUM_GROUPS):
            self.add_module(f"norm{index + 1}", _sync_norm(width))
        nn.init.normal_(self.level_embed)
        self.apply(_init_weights)
        self.vit_module = vit
        self._shapes = {n: ShapeSpec(channels=width, stride=s) for n, s in _STRIDES.items()}
        self.is_frozen = freeze_vit
        self._learning = set(finetune_groups) if freeze_vit else set(range(_NUM_GROUPS))
        if freeze_vit:
            vit.requires_grad_(False)
            for block in (b for group in self._learning for b in self._blocks(group)):
                block.requires_grad_(True)
            for part in self.frozen_parts():
                part.eval()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.VIT_ADAPTER`` and builds the ViT.

        Raises:
            ConfigError: for a ViT that does not exist.
        """
        node = cfg.MODEL.VIT_ADAPTER
        if node.NAME not in VITS:
            near = nearest(node.NAME, VITS, n=1)
            raise ConfigError(
                f"MODEL.VIT_ADAPTER.NAME {node.NAME!r} is unknown; set one of {', '.join(VITS)}"
                + (f" ({near[0]}?)" if near else "")
            )
        size = VITS[node.NAME]
        return {
            "vit": DinoVisionTransformer(**size),
            "num_heads": size["num_heads"],
            "freeze_vit": node.FREEZE_VIT,
            "finetune_groups": node.FINETUNE_INDEXES if node.FINETUNE else (),
            "use_checkpoint": node.WITH_CP,
            "vit_weights": node.VIT_WEIGHT,
        }

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames ``(B, 3, H, W)`` to res2 to res5, all of the ViT's width."""
        height, width = frames.shape[-2:]
        frames = F.pad(frames, (0, -width % _COARSEST, 0, -height % _COARSEST))
        finest, *coarser = self.spm(frames)
        sizes = [(m.shape[2], m.shape[3]) for m in coarser]
        cells = torch.cat(
            [
                m.flatten(2).transpose(1, 2) + level
                for m, level in zip(coarser, self.level_embed, strict=True)
            ],
            dim=1,
        )  # (B, S, C)
        read = []
        x = self.vit_module.tokens(frames)
        for group, interaction in enumerate(self.interactions):
            x = self._run_group(group, x)
            patches = x[:, 1:]  # without the class token
            cells = interaction(cells, patches, sizes, recompute=self._recomputes())
            read.append(patches.transpose(1, 2).unflatten(2, sizes[1]))
        maps = _as_maps(cells, sizes)
        maps.insert(0, self.up(maps[0]) + finest)
        features = {}
        for index, ((name, stride), own, seen) in enumerate(
            zip(_STRIDES.items(), maps, read, strict=True)
        ):
            seen = F.interpolate(seen, size=own.shape[2:], mode="bilinear", align_corners=False)
            normed = self.get_submodule(f"norm{index + 1}")(own + seen)
            features[name] = normed[..., : -(-height // stride), : -(-width // stride)]
        return features

    def frozen_parts(self) -> list[nn.Module]:
        """Gives the parts of the ViT that do not train."""
        if not self.is_frozen:
            return []
        frozen = (group for group in range(_NUM_GROUPS) if group not in self._learning)
        blocks = [block for group in frozen for block in self._blocks(group)]
        return [self.vit_module.patch_embed, self.vit_module.norm, *blocks]

    @property
    def size_divisibility(self) -> int:
        """Sizes that need no padding here."""
        return _COARSEST

    def load_pretrained(self, path: str | Path) -> list[str]:
        """Loads a file of the whole backbone, or of its ViT alone; see the base class."""
        state = read_state_dict(path)
        if any(_TRUNK in name for name in state):
            return fill_backbone(self, state, path, keys="MODEL.BACKBONE.NAME and the widths")
        return self._load_vit(state, path)

    def fill_missing(self, missing: Collection[str]) -> None:
        """Loads the ViT from its own file if no other file gave any of it; see the base class."""
        named = {f"{_TRUNK}{name}" for name in self.vit_module.state_dict()}
        if not named <= set(missing):
            return
        if not self.vit_weights:
            problem = "is empty" if self.is_frozen else ""
        else:
            try:
                path = find_weights(self.vit_weights)
            except DataError as error:
                problem = f"is not used ({error})"
            else:
                self._load_vit(read_state_dict(path), path)
                return
        if problem:
            logger.warning(
                "MODEL.VIT_ADAPTER.VIT_WEIGHT %s: the ViT starts at random%s; give the path of a "
                "DINOv2 file, or MODEL.WEIGHTS with a whole model",
                problem,
                " and stays so, because MODEL.VIT_ADAPTER.FREEZE_VIT is True"
                if self.is_frozen
                else "",
            )

    def _load_vit(self, state: dict[str, Tensor], where: str | Path) -> list[str]:
        if any(name.endswith("register_tokens") for name in state):
            raise DataError(
                f"{where} is a DINOv2 with register tokens, which this ViT does not have; give the "
                "file of the same size without registers"
            )
        return fill_backbone(
            self.vit_module, state, where, keys="MODEL.VIT_ADAPTER.NAME against the file"
        )

    def _blocks(self, group: int) -> list[nn.Module]:
        size = len(self.vit_module.blocks) // _NUM_GROUPS
        return list(self.vit_module.blocks)[group * size : (group + 1) * size]

    def _run_group(self, group: int, x: Tensor) -> Tensor:
        learns = group in self._learning
        # Above a group that trains, a frozen one would keep its whole graph.
        with contextlib.nullcontext() if learns else torch.no_grad():
            for block in self._blocks(group):
                if learns and self._recomputes():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
        return x

    def _recomputes(self) -> bool:
        return self.use_checkpoint and self.training and torch.is_grad_enabled()


class _SpatialPrior(nn.Module):
    """Convolutions to maps of stride 4 to 32, all projected to one width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_norm_relu(3, channels, stride=2),
            *_conv_norm_relu(channels, channels),
            *_conv_norm_relu(channels, channels),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*_conv_norm_relu(channels, 2 * channels, stride=2))
        self.conv3 = nn.Sequential(*_conv_norm_relu(2 * channels, 4 * channels, stride=2))
        self.conv4 = nn.Sequential(*_conv_norm_relu(4 * channels, 4 * channels, stride=2))
        self.fc1 = Conv2d(channels, width, 1)
        self.fc2 = Conv2d(2 * channels, width, 1)
        self.fc3 = Conv2d(4 * channels, width, 1)
        self.fc4 = Conv2d(4 * channels, width, 1)

    def forward(self, frames: Tensor) -> list[Tensor]:
        c1 = self.stem(frames)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return [self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)]


class _Interaction(nn.Module):
    """What the maps do after one group of blocks."""

    def __init__(
        self, width: int, num_heads: int, num_points: int, ffn_ratio: float, *, num_extra: int
    ) -> None:
        super().__init__()
        hidden = int(width * ffn_ratio)
        self.extractor = _Extractor(width, num_heads, num_points, hidden)
        self.extra_extractors = nn.ModuleList(
            _Extractor(width, num_heads, num_points, hidden) for _ in range(num_extra)
        )

    def forward(
        self, cells: Tensor, patches: Tensor, sizes: Sequence[Size], *, recompute: bool
    ) -> Tensor:
        for extractor in (self.extractor, *self.extra_extractors):
            if recompute:
                cells = checkpoint(extractor, cells, patches, sizes, use_reentrant=False)
            else:
                cells = extractor(cells, patches, sizes)
        return cells


class _Extractor(nn.Module):
    """The cells of the maps read the patches around them, then each other."""

    def __init__(self, width: int, num_heads: int, num_points: int, hidden: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=_EPS)
        self.feat_norm = nn.LayerNorm(width, eps=_EPS)
        self.attn = MSDeformAttn(width, 1, num_heads=num_heads, num_points=num_points)
        self.ffn = _ConvFFN(width, hidden)
        self.ffn_norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, cells: Tensor, patches: Tensor, sizes: Sequence[Size]) -> Tensor:
        # Places need single precision whatever the features have.
        dtype = torch.promote_types(cells.dtype, torch.float32)
        reference = cell_centres(sizes, device=cells.device, dtype=dtype)
        query, memory = self.query_norm(cells), self.feat_norm(patches)
        cells = cells + self.attn(query, reference, memory, [sizes[1]])
        return cells + self.ffn(self.ffn_norm(cells), sizes)


class _ConvFFN(nn.Module):
    """Two linear layers with a 3x3 convolution per channel and map in between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.dwconv = _DepthwiseConv(hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, cells: Tensor, sizes: Sequence[Size]) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(cells), sizes)))


class _DepthwiseConv(nn.Module):
    """The same convolution over every map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, cells: Tensor, sizes: Sequence[Size]) -> Tensor:
        maps = [self.dwconv(m).flatten(2) for m in _as_maps(cells, sizes)]
        return torch.cat(maps, dim=2).transpose(1, 2)


def _as_maps(cells: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Splits ``(B, S, C)`` into maps ``(B, C, height, width)``."""
    parts = cells.transpose(1, 2).split([h * w for h, w in sizes], dim=2)
    return [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


def _conv_norm_relu(channels: int, out: int, *, stride: int = 1) -> list[nn.Module]:
    conv = Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
    return [conv, _sync_norm(out), nn.ReLU(inplace=True)]


def _sync_norm(channels: int) -> nn.Module:
    norm = build_norm("SyncBN", channels)
    assert norm is not None
    return norm


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, MSDeformAttn):
        module.reset_parameters()
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
