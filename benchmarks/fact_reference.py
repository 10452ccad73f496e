"""FACT as it is published, layer by layer: what our network is measured against.

Every layer is a module of its own, in the published order and under the published names:
convolutions over ``(1, channels, T)``, a concatenation before every fusion, attention modules that
also give their weights, a loop over labels. Losses are in ``fact_reference_losses``. Of the
published branches it has those that the measured settings name: MS-TCN++, and tokens without a
transcript. A test holds it to recorded values of the published code.

Source: Lu and Elhamifar, "FACT: Frame-Action Cross-Attention Temporal Modeling for Efficient Action
Segmentation", CVPR 2024.
Shapes: T frames, D input channels, C classes, M tokens, S predicted segments, H ``hid_dim``,
F ``f_dim``, A ``a_dim``; channels are last and the middle dimension is 1.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ReferenceFACT", "runs_of"]

Outputs = dict[str, Any]
"""What the losses and the prediction need of a block, and its features for the next."""


class ReferenceFACT(nn.Module):
    """The network of a config, with the published parameter names.

    Args:
        cfg: sections ``FACT``, ``Bi``, ``Bu`` and ``BU``; None takes the value last in force.
        input_dim: D.
        n_classes: C.
    """

    def __init__(self, cfg: Any, input_dim: int, n_classes: int) -> None:
        super().__init__()
        section = dict(cfg.Bi)
        self.merge_weight = cfg.FACT.mwt
        self.channel_dropout = nn.Dropout1d(cfg.FACT.cmr)
        self.register_buffer(
            "positions", _positions(10000, section["hid_dim"], cfg.FACT.fpos), persistent=False
        )
        self.action_query = nn.Parameter(torch.randn(cfg.FACT.ntoken, 1, section["a_dim"]))
        self.block_list = nn.ModuleList()
        for letter in cfg.FACT.block:
            if letter == "i":
                self.block_list.append(InputBlock(section, input_dim, n_classes))
                continue
            named = dict(cfg[f"B{letter}"])
            section = {**section, **{k: v for k, v in named.items() if v is not None}}
            block = UpdateBlock if letter == "u" else SegmentUpdateBlock
            self.block_list.append(block(section, n_classes))

    def forward(self, features: Tensor) -> list[Outputs]:
        """Gives the outputs of every block for the features ``(T, D)`` of a video."""
        frames = features.unsqueeze(1)
        frame_pos = self.get_buffer("positions")[: len(frames)]
        frames = self.channel_dropout(frames.permute(1, 2, 0)).permute(2, 0, 1)
        tokens = torch.zeros_like(self.action_query)
        outputs = []
        for block in self.block_list:
            outputs.append(block(frames, tokens, frame_pos, self.action_query))
            frames, tokens = outputs[-1]["frames"], outputs[-1]["tokens"]
        return outputs

    def predict(self, features: Tensor) -> Tensor:
        """Gives the merged class of every frame, int64 ``(T,)``."""
        last = self(features)[-1]
        frame_prob = last["frame_clogit"].squeeze(1).softmax(-1)
        token_logit = last["action_clogit"].squeeze(1)
        kept = torch.where(token_logit.argmax(1) != token_logit.shape[1] - 1)[0]
        if not len(kept):
            return frame_prob.argmax(1)
        token_prob = token_logit[:, :-1].softmax(1)
        picked = kept[last["a2f_attn"][0][:, kept].argmax(1)]
        weight = self.merge_weight
        return ((1 - weight) * token_prob[picked] + weight * frame_prob).argmax(1)


class InputBlock(nn.Module):
    """Block ``i``: frames by themselves, then tokens that attend to them."""

    def __init__(self, section: dict[str, Any], input_dim: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.frame_branch = _frame_branch(section, input_dim)
        self.action_branch = TokenDecoder(section, has_memory=True)

    def forward(self, frames: Tensor, tokens: Tensor, frame_pos: Tensor, pos: Tensor) -> Outputs:
        frames, frame_clogit = _take_logits(self.frame_branch(frames), self.n_classes)
        tokens = self.action_branch(tokens, pos, frames, frame_pos)
        tokens, action_clogit = _take_logits(tokens, self.n_classes + 1)
        return {
            "frames": frames,
            "tokens": tokens,
            "frame_clogit": frame_clogit,
            "action_clogit": action_clogit,
        }


class UpdateBlock(nn.Module):
    """Block ``u``: tokens gather from frames, then frames from tokens."""

    def __init__(self, section: dict[str, Any], n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.frame_branch = _frame_branch(section)
        self.f2a_layer = CrossAttention(section, section["a_dim"])
        self.action_branch = TokenDecoder(section, has_memory=False)
        self.a2f_layer = CrossAttention(section, section["f_dim"])

    def forward(self, frames: Tensor, tokens: Tensor, frame_pos: Tensor, pos: Tensor) -> Outputs:
        tokens, f2a_attn, f2a_logit = self.f2a_layer(frames, tokens, frame_pos, pos)
        tokens, action_clogit = _take_logits(self.action_branch(tokens, pos), self.n_classes + 1)
        frames, a2f_attn, a2f_logit = self.a2f_layer(tokens, frames, pos, frame_pos)
        frames, frame_clogit = _take_logits(self.frame_branch(frames), self.n_classes)
        return {
            "frames": frames,
            "tokens": tokens,
            "frame_clogit": frame_clogit,
            "action_clogit": action_clogit,
            "f2a_attn": f2a_attn,
            "a2f_attn": a2f_attn,
            "f2a_attn_logit": f2a_logit,
            "a2f_attn_logit": a2f_logit,
        }


class SegmentUpdateBlock(nn.Module):
    """Block ``U``: the same on the mean features of predicted segments, copied back to frames."""

    def __init__(self, section: dict[str, Any], n_classes: int) -> None:
        super().__init__()
        hidden, width = section["hid_dim"], section["f_dim"]
        self.n_classes = n_classes
        self.frame_branch = _frame_branch(section)
        self.seg_update = nn.GRU(hidden, hidden // 2, section["s_layers"], bidirectional=True)
        self.seg_combine = nn.Linear(hidden, hidden)
        self.f2a_layer = CrossAttention(section, section["a_dim"])
        self.action_branch = TokenDecoder(section, has_memory=False)
        self.a2f_layer = CrossAttention(section, width)
        self.sf_merge = nn.Sequential(nn.Linear(hidden + width, width), nn.ReLU())

    def forward(self, frames: Tensor, tokens: Tensor, frame_pos: Tensor, pos: Tensor) -> Outputs:
        predicted = frames[:, 0, -self.n_classes :].argmax(-1)
        _, of_frame, lengths = torch.unique_consecutive(
            predicted, return_inverse=True, return_counts=True
        )
        sums = frames.new_zeros(len(lengths), 1, frames.shape[2]).index_add_(0, of_frame, frames)
        segments = self.seg_update(sums / lengths[:, None, None])[0].relu()
        segments, seg_clogit = _take_logits(self.seg_combine(segments), self.n_classes)
        ends = lengths.cumsum(0)
        seg_pos = frame_pos[(2 * ends - lengths - 1) // 2]
        tokens, f2a_attn, f2a_logit = self.f2a_layer(segments, tokens, seg_pos, pos)
        tokens, action_clogit = _take_logits(self.action_branch(tokens, pos), self.n_classes + 1)
        segments, a2f_attn, a2f_logit = self.a2f_layer(tokens, segments, pos, seg_pos)
        frames = self.sf_merge(torch.cat([segments[of_frame], frames], -1))
        frames, frame_clogit = _take_logits(self.frame_branch(frames), self.n_classes)
        return {
            "frames": frames,
            "tokens": tokens,
            "frame_clogit": frame_clogit,
            "action_clogit": action_clogit,
            "seg_clogit": seg_clogit,
            "segment_of_frame": of_frame,
            "f2a_attn": f2a_attn[:, :, of_frame],
            "a2f_attn": a2f_attn[:, of_frame],
            "f2a_attn_logit": f2a_logit,
            "a2f_attn_logit": a2f_logit,
        }


class MSTCN2(nn.Module):
    """Frame branch of MS-TCN++: each layer runs two dilated convolutions side by side."""

    def __init__(self, section: dict[str, Any], input_dim: int | None) -> None:
        super().__init__()
        width, count = section["f_dim"], section["f_layers"]
        if input_dim is not None:
            self.conv_1x1_in = nn.Conv1d(input_dim, width, 1)
        self.has_input = input_dim is not None
        self.conv_dilated_1 = nn.ModuleList(
            _dilated(width, 2 ** (count - 1 - i), section["f_ngp"]) for i in range(count)
        )
        self.conv_dilated_2 = nn.ModuleList(
            _dilated(width, 2**i, section["f_ngp"]) for i in range(count)
        )
        self.conv_fusion = nn.ModuleList(nn.Conv1d(2 * width, width, 1) for _ in range(count))
        self.dropout = nn.Dropout(section["dropout"])
        self.conv_out = nn.Conv1d(width, section["hid_dim"], 1)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.permute(1, 2, 0)
        if self.has_input:
            x = self.conv_1x1_in(x)
        layers = list(zip(self.conv_dilated_1, self.conv_dilated_2, self.conv_fusion, strict=True))
        for index, (wide, narrow, fusion) in enumerate(layers):
            update = F.relu(fusion(torch.cat([wide(x), narrow(x)], 1)))
            if index + 1 < len(layers):
                update = self.dropout(update)
            x = update + x
        return self.conv_out(x).permute(2, 0, 1)


class CrossAttention(nn.Module):
    """One head from X to Y, whose result is mapped together with Y."""

    def __init__(self, section: dict[str, Any], out_dim: int) -> None:
        super().__init__()
        hidden = section["hid_dim"]
        self.X_K = nn.Linear(hidden, hidden)
        self.X_V = nn.Linear(hidden, hidden)
        self.Y_Q = nn.Linear(hidden, hidden)
        self.Y_W = nn.Linear(2 * hidden, out_dim)
        self.dropout = nn.Dropout(section["dropout"])

    def forward(
        self, x: Tensor, y: Tensor, x_pos: Tensor, y_pos: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        key, value = self.X_K(_with_position(x, x_pos)), self.X_V(x)
        query = self.Y_Q(_with_position(y, y_pos))
        logit = torch.einsum("xbd,ybd->byx", key, query) / math.sqrt(key.shape[-1])
        attn = logit.softmax(-1)
        gathered = torch.einsum("byx,xbh->ybh", attn, value)
        return self.Y_W(self.dropout(torch.cat([y, gathered], -1))), attn, logit


class TokenDecoder(nn.Module):
    """Action branch: layers of attention among tokens, with or without frames to attend to."""

    def __init__(self, section: dict[str, Any], *, has_memory: bool) -> None:
        super().__init__()
        layer = CrossTokenLayer(section) if has_memory else TokenLayer(section)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(section["a_layers"]))
        self.norm = nn.LayerNorm(section["a_dim"]) if has_memory else nn.Identity()
        self.out_linear = nn.Linear(section["a_dim"], section["hid_dim"])

    def forward(self, tokens: Tensor, pos: Tensor, *memory: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens, pos, *memory)
        return self.out_linear(self.norm(tokens))


class TokenLayer(nn.Module):
    """Self-attention and feed-forward, each with its residual and norm."""

    def __init__(self, section: dict[str, Any]) -> None:
        super().__init__()
        width, dropout = section["a_dim"], section["dropout"]
        self.multihead_attn = nn.MultiheadAttention(width, section["a_nhead"], dropout=dropout)
        self.linear1 = nn.Linear(width, section["a_ffdim"])
        self.linear2 = nn.Linear(section["a_ffdim"], width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, pos: Tensor) -> Tensor:
        query = _with_position(tokens, pos)
        update, _ = self.multihead_attn(query, query, tokens, average_attn_weights=False)
        tokens = self.norm1(tokens + self.dropout(update))
        update = self.linear2(self.dropout(F.relu(self.linear1(tokens))))
        return self.norm2(tokens + self.dropout(update))


class CrossTokenLayer(nn.Module):
    """Self-attention, attention to frames and feed-forward, each with its residual and norm."""

    def __init__(self, section: dict[str, Any]) -> None:
        super().__init__()
        width, heads, dropout = section["a_dim"], section["a_nhead"], section["dropout"]
        memory = {"kdim": section["hid_dim"], "vdim": section["hid_dim"]}
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=dropout, **memory)
        self.linear1 = nn.Linear(width, section["a_ffdim"])
        self.linear2 = nn.Linear(section["a_ffdim"], width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, pos: Tensor, frames: Tensor, frame_pos: Tensor) -> Tensor:
        query = _with_position(tokens, pos)
        update, _ = self.self_attn(query, query, tokens)
        tokens = self.norm1(tokens + self.dropout(update))
        query, key = _with_position(tokens, pos), _with_position(frames, frame_pos)
        update, _ = self.multihead_attn(query, key, frames)
        tokens = self.norm2(tokens + self.dropout(update))
        update = self.linear2(self.dropout(F.relu(self.linear1(tokens))))
        return self.norm3(tokens + self.dropout(update))


def runs_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gives the class of every run of equal labels, and the number of the run of every frame.

    Args:
        labels: int64 ``(T,)``.

    Returns:
        int64 ``(S,)`` and ``(T,)``.
    """
    current = labels[0]
    classes, of_frame = [current], torch.zeros_like(labels)
    for index, label in enumerate(labels):
        if label != current:
            current = label
            classes.append(label)
        of_frame[index] = len(classes) - 1
    return torch.stack(classes), of_frame


def _frame_branch(section: dict[str, Any], input_dim: int | None = None) -> MSTCN2:
    if section["f"] != "m2":
        raise ValueError(f"f is {section['f']!r}; the reference has m2 only")
    return MSTCN2(section, input_dim)


def _dilated(width: int, dilation: int, groups: int) -> nn.Conv1d:
    return nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, groups=groups)


def _take_logits(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Puts the soft-max of the last channels in their place, and gives them as logits."""
    logit = features[:, :, -count:]
    return torch.cat([features[:, :, :-count], logit.softmax(-1)], -1), logit


def _with_position(features: Tensor, pos: Tensor) -> Tensor:
    features = features.clone()
    features[:, :, : pos.shape[-1]] += pos
    return features


def _positions(count: int, width: int, is_on: bool) -> Tensor:
    table = torch.zeros(count, 1, width)
    if is_on:
        steps = torch.arange(count)[:, None] * torch.exp(
            torch.arange(0, width, 2) * (-math.log(10000.0) / width)
        )
        table[:, 0, 0::2], table[:, 0, 1::2] = steps.sin(), steps.cos()
    return table
