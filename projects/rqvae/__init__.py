"""RQ-VAE: sequences of features as discrete codes, over sliding windows.

Importing the package brings its config keys only; the submodules in ``COMPONENTS`` register the
models and evaluators when one is built, and the public classes come with the first use of a name.
"""

from __future__ import annotations

from vidseg.plugins import lazy_exports

from .config import add_config

__all__ = ["COMPONENTS", "add_config"]

COMPONENTS = (
    "documents_synthetic",  # first: a component that fails leaves out those after it
    "autoencoder",
    "linear_codec",
    "retrieval_head",
    "evaluator",
)

_MODULES = {
    "AttentiveStatisticsPooling": "pooling",
    "CodeStatistics": "retrieval",
    "CodesFile": "codes_file",
    "DocumentCodes": "documents",
    "DocumentPrediction": "documents",
    "DocumentRQVAE": "autoencoder",
    "MultiWindowDecoder": "decoder",
    "ResidualVectorQuantizerEMA": "quantizer",
    "SlidingWindowStatsPooling": "pooling",
    "aggregate": "retrieval",
    "num_windows": "windows",
    "read_codes": "codes_file",
    "window_centres": "windows",
    "write_codes": "codes_file",
}

__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
