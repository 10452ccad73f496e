"""A model and documents small enough for the commands to run in a blink."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vidseg.config import load_config
from vidseg.modeling import build_model

CONFIG = Path(__file__).parents[3] / "projects" / "rqvae" / "rqvae_sliding_window.yaml"
WIDTH = 6
SMALL = (
    *("MODEL.RQVAE.INPUT_DIM", str(WIDTH), "MODEL.RQVAE.LATENT_DIM", "16"),
    *("MODEL.RQVAE.NHEAD", "2", "MODEL.RQVAE.NUM_ENCODER_LAYERS", "1"),
    *("MODEL.RQVAE.NUM_DECODER_LAYERS", "2", "MODEL.RQVAE.POOLING_HIDDEN_DIM", "8"),
    *("MODEL.RQVAE.CODEBOOK_SIZE", "16", "MODEL.RQVAE.NUM_CODEBOOKS", "3"),
    *("MODEL.RQVAE.CODE_DIM", "8", "MODEL.RQVAE.KMEANS_INIT", "False", "MODEL.DEVICE", "cpu"),
)


def save_weights(path: Path, words: tuple[str, ...] = SMALL, *, seed: int = 0) -> Path:
    """Writes weights that have learnt nothing; their codebooks are random."""
    torch.manual_seed(seed)
    model = build_model(load_config(CONFIG, list(words)))
    torch.save({"model": model.state_dict()}, path)
    return path


def make_documents(folder: Path, *, num: int = 6) -> Path:
    """Writes documents of two topics, each a subfolder; their lengths differ."""
    rng = np.random.default_rng(0)
    for number in range(num):
        path = folder / ("rain", "sun")[number % 2] / f"d{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.normal(number % 2, 1, (30 + 7 * number, WIDTH)).astype(np.float32))
    return folder
