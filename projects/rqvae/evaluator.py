"""The evaluator of documents as codes: use of the codebooks, reconstruction, rates, retrieval."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import UserError
from vidseg.evaluation.base import EVALUATOR_REGISTRY, Evaluator, Metrics
from vidseg.evaluation.report import write_metrics, write_text

from .evaluator_report import Report, format_report, level_csv, window_csv
from .metrics import CodebookUsage, codebook_usage, usage_by_position
from .retrieval_scores import score_halves, score_topics
from .split_results import SplitResults, pack
from .windows import window_centres

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

    from .documents import DocumentPrediction

__all__ = ["DocumentCodesEvaluator"]

logger = logging.getLogger(__name__)


@EVALUATOR_REGISTRY.register(name="document_codes")
class DocumentCodesEvaluator(Evaluator):
    """Scores the codes of a whole split.

    Files in ``output_dir``: ``metrics.json`` (flat), ``report.md`` (all tables), ``per_level.csv``
    and ``per_window.csv`` (use of every codebook, by window position).

    Shares (utilization, recall, mAP, ``perplexity_ratio``) are fractions, ratios of signal to noise
    are dB.

    Args:
        output_dir: where the files go; created when they are written.
        codebook_size: K.
        window: frames of a window.
        stride: frames from one window to the next.
        mode: of the windows.
        frame_rate: frames per second, where a sample does not say.
        dataset_name: for messages.
    """

    headline = (
        "reconstruction/SNR",
        "codes/utilization",
        "codes/perplexity_ratio",
        "rate/codes_per_10s",
        "retrieval/A/maxsim/recall@1",
        "retrieval/A/maxsim/mAP",
        "retrieval/B/continuous/recall@1",
        "retrieval/C/recall@1",
    )

    def __init__(
        self,
        output_dir: Path,
        *,
        codebook_size: int,
        window: int,
        stride: int,
        mode: str,
        frame_rate: float,
        dataset_name: str = "the data set",
    ) -> None:
        self._output_dir = Path(output_dir)
        self._codebook_size = codebook_size
        self._window = window
        self._stride = stride
        self._mode = mode
        self._frame_rate = frame_rate
        self._dataset_name = dataset_name
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, metadata: Metadata, output_dir: Path) -> dict[str, Any]:
        """See the base class; reads ``MODEL.RQVAE``."""
        node = cfg.MODEL.RQVAE
        return {
            "output_dir": output_dir,
            "codebook_size": node.CODEBOOK_SIZE,
            "window": node.WINDOW_SIZE,
            "stride": node.WINDOW_STRIDE,
            "mode": node.WINDOW_MODE,
            "frame_rate": node.FRAME_RATE,
            "dataset_name": metadata.name,
        }

    def encode(self, sample: dict[str, Any], prediction: DocumentPrediction) -> dict[str, Any]:
        """Gives the codes, the sums over frames and the descriptors of a document.

        Raises:
            UserError: if an error is no number; that is the model and not the document.
        """
        errors = prediction.frame_errors.double()
        if not torch.isfinite(errors).all():
            raise UserError(
                f"the model's reconstruction of document {sample['video_id']} is no number; its "
                "weights have diverged: evaluate an earlier checkpoint"
            )
        tokens = prediction.tokens
        topic = sample.get("topic")
        num_frames = int(prediction.frame_mask.sum())
        position_errors, position_frames = self._by_position(
            errors[-1], prediction.frame_mask, len(tokens.codes)
        )
        return {
            "codes": pack(tokens.codes.to(torch.int32)),
            "window_mask": pack(tokens.window_mask),
            "num_frames": num_frames,
            "seconds": num_frames / float(sample.get("frame_rate") or self._frame_rate),
            "input_dim": prediction.input_dim,
            "errors": errors.sum(1).tolist(),
            "energy": float(prediction.frame_energy.double().sum()),
            "feature_sum": pack(prediction.feature_sum.double()),
            "latent_error": [float(value) for value in prediction.latent_error],
            "position_errors": pack(position_errors),
            "position_frames": pack(position_frames),
            "vectors": {name: pack(vector) for name, vector in prediction.vectors.items()},
            "topic": -1 if topic is None else int(topic),
        }

    def score(self, results: Mapping[Any, Any]) -> Metrics:
        """Writes the files and gives the metrics by group.

        ``codes``, ``reconstruction``, ``rate``; ``retrieval`` if documents have topics; ``halves``
        if documents are longer than two windows. What is undefined is nan.
        """
        split = SplitResults.read(results.values())
        if not split.num_documents:
            logger.warning(
                "%s: no document was coded, there is nothing to score", self._dataset_name
            )
            return {"codes": {}}
        codes = split.codes
        usage = codebook_usage(_counts(codes, self._codebook_size))
        by_position = [
            usage_by_position(split.positions, column, split.num_positions, self._codebook_size)
            for column in codes.T
        ]
        metrics: Metrics = {
            "codes": _code_metrics(usage, split),
            "reconstruction": split.reconstruction(),
            "rate": vars(split.rates(self._codebook_size)),
        }
        if any(topic >= 0 for topic in split.topics):
            metrics["retrieval"] = score_topics(split.vectors, np.array(split.topics))
        if split.halves:
            metrics["halves"] = score_halves(split.halves, split.num_documents)
        report = Report(
            dataset_name=self._dataset_name,
            codebook_size=self._codebook_size,
            metrics=metrics,
            usage=usage,
            by_position=by_position,
            position_mse=split.position_mse(),
        )
        path = self._output_dir / "report.md"
        write_text(path, format_report(report))
        shown = format_report(report, by_window=False)
        logger.info("%s (by window index: %s)\n%s", self._dataset_name, path, shown)
        write_text(self._output_dir / "per_level.csv", level_csv(report))
        write_text(self._output_dir / "per_window.csv", window_csv(report))
        flat = {f"{task}/{name}": value for task, m in metrics.items() for name, value in m.items()}
        write_metrics(self._output_dir / "metrics.json", flat)
        return metrics

    def _by_position(self, errors: Tensor, mask: Tensor, num_windows: int) -> tuple[Tensor, Tensor]:
        """Sums errors over the frames that are nearest to the centre of each window."""
        centres = window_centres(num_windows, self._window, self._stride, self._mode)
        frames = torch.arange(len(errors), dtype=torch.float32)
        position = torch.bucketize(frames, (centres[1:] + centres[:-1]) / 2, right=True)
        sums = torch.zeros(num_windows, dtype=torch.float64).index_add_(0, position, errors * mask)
        return sums, torch.bincount(position[mask], minlength=num_windows)


def _counts(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Counts the codes ``(M, Q)`` of each level; gives ``(Q, K)``."""
    return np.stack([np.bincount(c[c >= 0], minlength=codebook_size) for c in codes.T])


def _code_metrics(usage: CodebookUsage, split: SplitResults) -> dict[str, float]:
    """Gives the means over levels, the worst level, and every level by itself."""
    metrics = {
        "num_documents": float(split.num_documents),
        "num_vectors": float(usage.num_vectors[0]),
        "utilization": float(usage.utilization.mean()),
        "utilization_min": float(usage.utilization.min()),
        "utilization_expected": float(usage.expected.mean()),
        "perplexity": float(usage.perplexity.mean()),
        "perplexity_ratio": float(usage.perplexity_ratio.mean()),
        "perplexity_ratio_min": float(usage.perplexity_ratio.min()),
        "dead_codes": float(usage.dead_codes.sum()),
        "top_share": float(usage.top_share.max()),
    }
    for level in range(len(usage.num_vectors)):
        for name, values in vars(usage).items():
            metrics[f"level_{level + 1}/{name}"] = float(values[level])
    return metrics
