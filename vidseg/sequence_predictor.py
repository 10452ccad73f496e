"""Trained models on features: from a file or an array to what the model says of it.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidseg.commands import build_trained
from vidseg.config import CfgNode, as_config
from vidseg.data import Record
from vidseg.data.documents import read_documents
from vidseg.data.mappers import Sample, build_mapper, mapper_class
from vidseg.engine.precision import Precision
from vidseg.errors import ConfigError, DataError, UserError

__all__ = ["SequencePredictor", "takes_features"]


def takes_features(cfg: CfgNode) -> bool:
    """Tells whether the model of a config reads feature sequences, and not frames."""
    return bool(mapper_class(cfg.DATASETS.DATASET_TYPE_TEST[0]).reads == "features")


class SequencePredictor:
    """Runs a model over feature sequences, each whole and by itself.

    A source is the path of a feature file (``.npy``, ``.npz`` or ``.pt``), an array or tensor
    ``(T, D)``, or a record of a data set of features. It takes the way of a test sample, so what
    the config says of sampling holds for it too.

    Args:
        model: takes a list of samples and gives a list of predictions in eval, on its device.
        mapper: makes test samples of records, as ``data.mappers.build_mapper`` gives it.
        precision: that the model computes in, as in testing; by default the one that it has.
    """

    def __init__(
        self, model: nn.Module, mapper: Any, *, precision: Precision | None = None
    ) -> None:
        self.model: Any = model.eval()
        self.mapper = mapper
        self.precision = precision or Precision.off()

    @classmethod
    def from_config(
        cls,
        config: str | Path | CfgNode,
        weights: str | Path | None = None,
        overrides: Sequence[Any] = (),
        *,
        plugins: Sequence[str] = (),
        device: str | None = None,
    ) -> SequencePredictor:
        """Builds the model of a config and loads its weights.

        Args:
            config: yaml file, or a config already loaded.
            weights: file; by default ``MODEL.WEIGHTS``, else what training with this config left
                in ``OUTPUT_DIR``.
            overrides: ``[KEY, VALUE, ...]``; they do not apply to a config already loaded.
            plugins: to load besides the config's own.
            device: such as ``"cpu"`` or ``"cuda:1"``; by default ``MODEL.DEVICE``, whose own
                default is an accelerator if there is one.

        Raises:
            UserError: if the config is wrong or its model reads frames, or there are no weights for
                a part of the model.
        """
        cfg = as_config(config, overrides, plugins, device=device)
        if not takes_features(cfg):
            raise ConfigError(
                f"{cfg.MODEL.META_ARCHITECTURE} reads frames, not features (DATASETS."
                f"DATASET_TYPE_TEST is {cfg.DATASETS.DATASET_TYPE_TEST[0]!r}); use VideoPredictor"
            )
        model = build_trained(cfg, str(weights or ""))
        return cls(
            model,
            build_mapper(cfg, cfg.DATASETS.DATASET_TYPE_TEST[0], is_train=False),
            precision=Precision.from_config(cfg, next(model.parameters()).device),
        )

    def predict(self, source: Any) -> Any:
        """Gives the model's prediction for a source.

        Raises:
            DataError: if the source cannot be read or has another width than the model takes.
        """
        return self.predict_sample(self.read(source))

    def read(self, source: Any) -> Sample:
        """Makes the sample of a source, without labels unless it is a record that has them.

        Raises:
            DataError: as ``predict``.
        """
        record = source if isinstance(source, dict) else _record(source)
        sample: Sample = self.mapper(record, np.random.default_rng(0))  # whole: nothing is drawn
        self._check_width(sample)
        return sample

    def predict_sample(self, sample: Sample) -> Any:
        """Gives the model's prediction for a sample."""
        with torch.no_grad(), self.precision.autocast():
            (prediction,) = self.model([sample])
        return prediction

    def write(self, folder: str | Path, sample: Sample, prediction: Any) -> str:
        """Writes the files that show a prediction, those of the model's project.

        Returns:
            What there is to say of it, in a few words.

        Raises:
            UserError: if the model does not show its predictions: it has no
                ``write_prediction(folder, sample, prediction) -> str``.
        """
        self.check_writes()
        return str(self.model.write_prediction(Path(folder), sample, prediction))

    def check_writes(self) -> None:
        """Checks that ``write`` is possible.

        Raises:
            UserError: if the model does not show its predictions.
        """
        if not hasattr(self.model, "write_prediction"):
            kind = type(self.model).__name__
            raise UserError(f"{kind} does not show its predictions: it has no `write_prediction`")

    def set_vocabulary(self, names: Sequence[str]) -> None:
        """Lets the model name what it sees by other classes, known by their names alone.

        Raises:
            UserError: if the model has no vocabulary that can be changed: no
                ``set_vocabulary(names)``.
        """
        if not hasattr(self.model, "set_vocabulary"):
            kind = type(self.model).__name__
            raise UserError(
                f"the classes of {kind} are those of its training; only a model that is aligned "
                "with text (it has `set_vocabulary`) takes others"
            )
        self.model.set_vocabulary(list(names))

    def _check_width(self, sample: Sample) -> None:
        length, width = sample["features"].shape
        wanted = getattr(self.model, "input_dim", width)
        if width == wanted:
            return
        name = next(iter(sample["file_names"]), sample["video_id"])
        hint = ""
        if length == wanted:
            hint = (
                "; it seems to hold (features, frames): transpose it, or say so in an index.json "
                'by "transposed": true'
            )
        raise DataError(f"{name} has {width} features per frame, the model takes {wanted}{hint}")


def _record(source: Any) -> Record:
    if isinstance(source, (str, Path)):
        records = read_documents(str(source), "the source")
        for reason in records.damaged.values():
            raise DataError(reason)
        if len(records) != 1:
            raise DataError(f"{source} holds {len(records)} sequences; give one of them")
        return records[0]
    array = source.detach().cpu().numpy() if hasattr(source, "detach") else np.asarray(source)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise DataError(
            f"features must be numbers (frames, features), got {array.dtype} {array.shape}"
        )
    length, width = array.shape
    return {
        **{"video_id": "the array", "file_names": [], "lengths": [], "length": length},
        **{"feature_dim": width, "json_file": "", "features": array},
    }
