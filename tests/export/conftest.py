"""A small online model that finds, ends and drops tracks with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vidseg.config import load_config
from vidseg.modeling import build_model

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = CHECKOUT / "projects" / "dvis_daq" / "online.yaml"
HEAD = "MODEL.VIDEO_HEAD"
OVERRIDES = (
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "1", "MODEL.MASK_FORMER.DEC_LAYERS", "3"),
    *("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"),
    *(f"{HEAD}.AUX_INFERENCE_SELECT_THRESHOLD", "0.2", f"{HEAD}.DIS_FG_THRESHOLD", "0.2"),
    *(f"{HEAD}.INFERENCE_SELECT_THRESHOLD", "0.3", f"{HEAD}.BIRTH_OVERLAP_THRESHOLD", "0.7"),
    *(f"{HEAD}.KICK_OUT_FRAME_NUM", "2"),
)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build_model(load_config(CONFIG, list(OVERRIDES)))
        nn.init.normal_(model.tracker.class_embed.weight, std=0.2)
    file = tmp_path_factory.mktemp("weights") / "online.pth"
    torch.save({"model": model.state_dict()}, file)
    return file


@pytest.fixture
def video() -> list[np.ndarray]:
    """Two rectangles that cross a slope of grey, the second from the fourth frame on."""
    frames = []
    for number in range(8):
        image = np.repeat(np.linspace(0, 120, 110, dtype=np.uint8)[None, :, None], 70, 0)
        image = np.repeat(image, 3, 2)
        image[10:30, 5 + 9 * number : 30 + 9 * number] = (220, 40, 40)
        if number >= 3:
            image[40:60, 90 - 8 * number : 110 - 8 * number] = (30, 200, 240)
        frames.append(image)
    return frames
