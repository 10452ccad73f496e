"""Bias of attention by what two blobs have to do with each other.

Whether two blobs are the same object is a question about the pair, which codes of absolute places
answer only after long training. All features are the same for a clip, the clip played backwards and
the clip that starts later.

Shapes: B clips, N tokens, F features, L layers, h heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tokenizer import Tokens

__all__ = ["BIASES", "PairBias", "motion_of", "pair_features"]

BIASES = ("none", "plain", "motion")

# Distances decay over a + b * gap pixels, in frames 64 high; (a, b) of each width.
_WIDTHS = ((1.0, 0.25), (2.0, 0.75), (4.0, 1.5))
_MOTION_WIDTHS = ((1.0, 0.15), (1.5, 0.4), (3.0, 1.0))
_SMOOTHINGS = 2
# Logits have to become several units large, farther than the steps of a short training take a
# weight; so a unit of a weight counts as that many of the logit.
_GAIN = 4.0
_FRAMES, _PIXELS, _RADIUS = 16.0, 32.0, 2.0  # units of gap, distance and radius difference


class PairBias(nn.Module):
    """A bias per layer and head, linear in features of pairs, and the logit of the null key.

    Args:
        kind: ``"plain"`` for gap, distance and size; ``"motion"`` for these and the distance after
            motion compensation; ``"none"``.
        num_layers: L.
        num_heads: h.
        motion_gate: pixels, in frames 64 high, within which the token of the next frame is taken
            for the same object.
        track_bias: add the feature "same track".
        null_key: add a column to the bias: a key without content that every token may attend to.

    Raises:
        ValueError: for an unknown kind.
    """

    def __init__(
        self,
        kind: str,
        num_layers: int,
        num_heads: int,
        *,
        motion_gate: float = 3.5,
        track_bias: bool = False,
        null_key: bool = False,
    ) -> None:
        super().__init__()
        if kind not in BIASES:
            raise ValueError(f"relative bias {kind!r} is none of {', '.join(BIASES)}")
        self.kind, self.motion_gate, self.track_bias = kind, motion_gate, track_bias
        self.num_layers, self.null_key = num_layers, null_key
        # The last feature is that of the null key: its weight is the constant logit, in gains.
        self._num_features = _NUM_FEATURES[kind] + track_bias + null_key
        self.weight = None
        if self._num_features:
            weight = torch.empty(num_layers, num_heads, self._num_features).uniform_(-0.3, 0.3)
            weight[..., self._num_features - null_key :] = 0
            self.weight = nn.Parameter(weight)

    def forward(self, tokens: Tokens, tracks: Tensor | None = None) -> list[Tensor]:
        """Computes what the attention of each layer adds to its logits, padding included.

        Args:
            tokens: of the batch.
            tracks: int64 ``(B, N)`` track of each token, -1 for none; with ``track_bias`` only.

        Returns:
            L times float32 ``(B, h|1, N|1, M)``, minus infinity for keys in the padding; M is N, or
            N + 1 with the null key, which comes last.

        Raises:
            ValueError: if the tracks are missing.
        """
        is_closed = _closed_keys(tokens.padding_mask)
        closed = torch.zeros_like(is_closed, dtype=torch.float32)
        closed = closed.masked_fill(is_closed, -torch.inf)  # (B, N)
        if self.weight is None:
            return [closed[:, None, None]] * self.num_layers
        features = self._stacked_features(tokens, tracks)  # (B, F, N, M)
        num_clips, _, *shape = features.shape
        closed = F.pad(closed, (0, int(self.null_key)))[:, None].expand(-1, shape[0], -1)
        with torch.autocast(closed.device.type, enabled=False):
            return [
                torch.baddbmm(
                    closed.reshape(num_clips, 1, -1),
                    _GAIN * weight.float().expand(num_clips, -1, -1),
                    features.flatten(2),
                ).unflatten(2, shape)
                for weight in self.weight
            ]

    def _stacked_features(self, tokens: Tokens, tracks: Tensor | None) -> Tensor:
        features = pair_features(tokens, self.kind, motion_gate=self.motion_gate)
        if self.track_bias:
            if tracks is None:
                raise ValueError("a bias by tracks needs the tracks of the tokens")
            same = (tracks[:, :, None] == tracks[:, None]) & (tracks >= 0)[:, None]
            features.append(same.float())
        num_clips, length = tokens.padding_mask.shape
        width = length + self.null_key
        stacked = tokens.boxes.new_zeros(num_clips, self._num_features, length, width)
        for number, feature in enumerate(features):
            stacked[:, number, :, :length] = feature
        if self.null_key:
            stacked[:, -1, :, -1] = 1
        return stacked


@torch.no_grad()
def pair_features(tokens: Tokens, kind: str, *, motion_gate: float = 3.5) -> list[Tensor]:
    """Describes every pair of tokens (i, j) of a clip.

    Args:
        tokens: of the batch.
        kind: see ``PairBias``.
        motion_gate: see there.

    Returns:
        float32 ``(B, N, N)`` each, rows i and columns j. What stands in the padding means nothing.
    """
    if kind == "none":
        return []
    scale = tokens.scale[:, None]
    place = tokens.centers * scale[..., None]
    radius = tokens.radii * scale
    step = (tokens.frame_index[:, None] - tokens.frame_index[:, :, None]).float()  # t_j - t_i
    gap = step.abs()
    offset = place[:, None] - place[:, :, None]  # (B, N, N, 2): p_j - p_i
    distance = offset.norm(dim=-1)
    features = [
        gap / _FRAMES,
        (gap == 0).float(),
        distance / _PIXELS,
        *(torch.exp(-distance / (a + b * gap)) for a, b in _WIDTHS),
        (radius[:, None] - radius[:, :, None]).abs() / _RADIUS,
    ]
    if kind == "motion":
        velocity, before, after = motion_of(
            offset, distance, step, tokens.padding_mask, gate=motion_gate
        )
        moved = step[..., None] * velocity[:, :, None]
        residual = (offset - moved).norm(dim=-1)  # of j against the motion of i
        residual_back = (offset - step[..., None] * velocity[:, None]).norm(dim=-1)
        features += [
            *(torch.exp(-residual / (a + b * gap)) for a, b in _MOTION_WIDTHS),
            *(torch.exp(-residual_back / (a + b * gap)) for a, b in _MOTION_WIDTHS),
            (residual / _PIXELS).clamp(max=2),
            *_continued(step, before.float(), after.float()),
        ]
    return features


_NUM_FEATURES = {"none": 0, "plain": 7, "motion": 18}


def motion_of(
    offset: Tensor, distance: Tensor, step: Tensor, padding_mask: Tensor, *, gate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates how tokens move from the nearest ones of the frames before and after.

    The velocity is the mean displacement on both sides, on one side where the other has no
    neighbour, 0 without any. It is then averaged with that of the neighbours, twice: the jitter of
    single centres would otherwise lead away over a long gap.

    Args:
        offset: ``(B, N, N, 2)``, from token i to token j in pixels.
        distance: ``(B, N, N)``, its length.
        step: ``(B, N, N)``, frames from i to j.
        padding_mask: bool ``(B, N)``, True = padding.
        gate: pixels beyond which there is no neighbour.

    Returns:
        Velocity ``(B, N, 2)`` in pixels per frame, and bool ``(B, N)`` each, whether there is a
        neighbour before, and after.
    """
    neighbours = []
    for side in (-1, 1):
        is_other = (step != side) | padding_mask[:, None] | (distance > gate)
        nearest, index = distance.masked_fill(is_other, torch.inf).min(-1)
        neighbours.append((nearest.isfinite() & ~padding_mask, index[..., None].expand(-1, -1, 2)))
    (before, _), (after, _) = neighbours
    count = (before.float() + after.float())[..., None]
    velocity = torch.zeros_like(offset[:, :, 0])
    for side, (there, index) in zip((-1, 1), neighbours, strict=True):
        to = offset.gather(2, index[:, :, None])[:, :, 0]
        velocity = velocity + side * to * there[..., None]
    velocity = velocity / count.clamp(min=1)
    for _ in range(_SMOOTHINGS):
        total = velocity
        for there, index in neighbours:
            total = total + velocity.gather(1, index) * there[..., None]
        velocity = total / (1 + count)
    return velocity, before, after


def _continued(step: Tensor, before: Tensor, after: Tensor) -> list[Tensor]:
    """Whether i, then j, has a neighbour towards the other one in time, and away from it.

    Returns:
        Four features ``(B, N, N)``; of tokens of one frame, the mean of both sides.
    """
    later, earlier = (step > 0).float(), (step < 0).float()
    same = (step == 0).float() / 2
    from_here = torch.stack([later + same, earlier + same]), torch.stack([earlier, later]) + same
    both = torch.stack([after, before])
    here = [(side * both[..., None]).sum(0) for side in from_here]
    there = [(side * both[:, :, None]).sum(0) for side in reversed(from_here)]
    return here + there


def _closed_keys(padding_mask: Tensor) -> Tensor:
    """The padding; a clip without tokens keeps its first key, as a softmax needs one."""
    closed = padding_mask.clone()
    closed[:, :1] &= ~padding_mask.all(1, keepdim=True)
    return closed
