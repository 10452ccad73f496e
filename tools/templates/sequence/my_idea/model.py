"""The model: dilated convolutions over time that name the class of every frame.

Shapes: B documents, T frames, D features per frame, C channels, K classes.
"""

from __future__ import annotations

import csv
import io
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.files import write_atomically
from vidseg.layers import pad_sequences
from vidseg.modeling import META_ARCH_REGISTRY

__all__ = ["MyIdea"]

_IGNORED = -1  # label of a frame that no loss sees


@META_ARCH_REGISTRY.register()
class MyIdea(nn.Module):
    """Names the class of every frame from its surroundings.

    Args:
        input_dim: width D of the features.
        num_classes: K.
        width: channels C inside.
        depth: convolutions; the last one sees ``2 ** depth - 1`` frames to each side.

    Raises:
        ConfigError: if one of them is less than 1.
    """

    feature_dim_key = "MODEL.MY_IDEA.INPUT_DIM"

    def __init__(
        self, *, input_dim: int, num_classes: int, width: int = 32, depth: int = 5
    ) -> None:
        super().__init__()
        sizes = {"INPUT_DIM": input_dim, "NUM_CLASSES": num_classes, "WIDTH": width, "DEPTH": depth}
        for key, value in sizes.items():
            if value < 1:
                raise ConfigError(f"MODEL.MY_IDEA.{key} is {value}; set 1 or more")
        self.input_dim = input_dim
        self.project = nn.Linear(input_dim, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size=3, padding=2**n, dilation=2**n)
            for n in range(depth)
        )
        self.classify = nn.Linear(width, num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.MY_IDEA``."""
        node = cfg.MODEL.MY_IDEA
        return {
            "input_dim": node.INPUT_DIM,
            "num_classes": node.NUM_CLASSES,
            "width": node.WIDTH,
            "depth": node.DEPTH,
        }

    def forward(self, samples: list[dict[str, Any]]) -> Any:
        """Gives losses in training, class probabilities ``(T, K)`` of every document in eval."""
        device = self.classify.weight.device
        features, mask = pad_sequences([sample["features"].to(device) for sample in samples])
        logits = self.classify(self._look_around(self.project(features), mask))
        if not self.training:
            lengths = mask.sum(1).tolist()
            return [row[:n].softmax(-1) for row, n in zip(logits.float(), lengths, strict=True)]
        labels = torch.full(mask.shape, _IGNORED, device=device)
        labels[mask] = torch.cat([sample["labels"] for sample in samples]).to(device)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED)
        return {"loss_ce": loss}

    def _look_around(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps ``(B, T, C)`` to the same; what stands behind the end of a document has no say."""
        valid = mask[:, None]
        x = x.transpose(1, 2)
        for convolution in self.convolutions:
            x = x + F.gelu(convolution(x * valid))
        return x.transpose(1, 2)

    def write_prediction(self, folder: Path, sample: dict[str, Any], prediction: Tensor) -> str:
        """Writes ``segments.csv``, a line for each run of frames of one class.

        Args:
            folder: where to; created if it is missing.
            sample: as it was given to the model.
            prediction: class probabilities ``(T, K)``.

        Returns:
            How many segments there are.
        """
        text, first, rows = io.StringIO(), 0, 0
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["first_frame", "last_frame", "class"])
        for label, frames in groupby(prediction.argmax(-1).tolist()):
            last = first + len(list(frames)) - 1
            writer.writerow([first, last, label])
            first, rows = last + 1, rows + 1
        content = text.getvalue().encode()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "segments.csv", lambda file: file.write(content))
        return f"{first} frames, {rows} segments"
