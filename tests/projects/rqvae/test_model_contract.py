"""The autoencoder as a model of vidseg: from config, samples in, losses and predictions out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.projects.rqvae.support import FULL, GLOBAL, WIDTH, build, document
from vidseg.config import load_config
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_model
from vidseg.projects.rqvae.documents import DocumentCodes
from vidseg.projects.rqvae.losses import cosine_loss, delta_loss, squared_error

PRESETS = Path(__file__).resolve().parents[3] / "projects" / "rqvae"
BOTH = pytest.mark.parametrize("settings", [FULL, GLOBAL], ids=["full", "global"])


def sample(length: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    return {"features": document(length, seed), "video_id": f"doc{seed}", **more}


@BOTH
def test_losses(settings: dict[str, Any]) -> None:
    model = build(loss_cosine=0.5, loss_delta=0.25, **settings).train()
    losses = model([sample(50), sample(31, 1)])
    names = ["loss_reconstruction", "loss_cosine", "loss_delta", "loss_commitment"]
    assert list(losses) == names
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert "loss_cosine" not in build(**settings).train()([sample(50)])


def test_padding_of_a_batch_changes_no_loss() -> None:
    one = build(**FULL, max_seq_len=50).train()
    both = build(**FULL, max_seq_len=50).train()
    masked = sample(50)
    masked["mask"] = torch.arange(50) < 30
    whole = one(
        [sample(50)],
    )
    padded = both([sample(50), {**sample(50, 1), "mask": torch.zeros(50, dtype=torch.bool)}])
    for name, value in whole.items():
        torch.testing.assert_close(padded[name], value)
    cut = build(**FULL, max_seq_len=50).train()([masked])
    assert cut["loss_reconstruction"] != whole["loss_reconstruction"]


def test_losses_are_what_they_say() -> None:
    x, y = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]]).bool()
    torch.testing.assert_close(squared_error(x, y, mask), (x - y)[mask].square().mean())
    torch.testing.assert_close(squared_error(x, y), (x - y).square().mean())
    cosine = torch.nn.functional.cosine_similarity(x[mask], y[mask], dim=-1)
    torch.testing.assert_close(cosine_loss(x, y, mask), (1 - cosine).mean())
    pairs = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    deltas = (x.diff(dim=1) - y.diff(dim=1))[pairs]
    torch.testing.assert_close(delta_loss(x, y, mask), deltas.square().mean())
    assert squared_error(x, y, mask & False) == 0
    assert delta_loss(x[:, :1], y[:, :1]) == 0


@BOTH
def test_prediction(settings: dict[str, Any]) -> None:
    model = build(**settings)
    mask = torch.ones(50, dtype=torch.bool)
    mask[10:14] = False
    mask[45:] = False
    given = sample(50, frame_rate=25.0, mask=mask)
    given["features"][~mask] = torch.nan
    prediction = model([given, sample(20, 1)])[0]
    tokens = model.encode(given["features"], mask)
    assert torch.equal(prediction.tokens.codes, tokens.codes)
    assert prediction.tokens.meta == {"id": "doc0", "frame_rate": 25.0}
    assert (prediction.num_frames, prediction.input_dim, tokens.num_frames) == (41, WIDTH, 45)
    x = model.standardisation(given["features"], mask)[:45]
    own = mask[:45]
    for levels in range(1, 9):
        cut = DocumentCodes(tokens.codes[:, :levels], tokens.window_mask, 45)
        y = model.standardisation(model.decode(cut))
        want = (x - y).square().sum(-1) * own
        torch.testing.assert_close(prediction.frame_errors[levels], want, atol=1e-4, rtol=1e-4)
    z, _ = model.latents(given["features"][:45], own)
    y = model._decode(z[None], tokens.window_mask[None], 45)[0]
    want = (x - y).square().sum(-1) * own
    torch.testing.assert_close(prediction.frame_errors[0], want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prediction.frame_energy, x.square().sum(-1))
    torch.testing.assert_close(prediction.feature_sum, x.double().sum(0))
    windows = model.rvq.decode(tokens.codes)
    assert torch.equal(prediction.windows, windows)
    noise, signal = prediction.latent_error
    assert noise == pytest.approx(float((z - windows).square().sum()), rel=1e-4)
    assert signal == pytest.approx(float(z.square().sum()), rel=1e-4)  # the mean is not fitted
    assert prediction.vectors["raw"].shape == (WIDTH,)
    assert prediction.vectors["latent"].norm() == pytest.approx(1.0)
    assert {"A/maxsim", "A/bag", "B", "B/continuous"} <= set(prediction.vectors)


def test_prediction_of_a_long_document_goes_by_pieces() -> None:
    model = build(**FULL)
    prediction = model([sample(300)])[0]
    x = document(300)
    want = model.standardisation(x) - model.standardisation(model.decode(model.encode(x)))
    found = prediction.frame_errors[8]
    torch.testing.assert_close(found, want.square().sum(-1), atol=1e-3, rtol=1e-3)


def test_prediction_of_a_document_without_valid_frames() -> None:
    prediction = build(**FULL)([sample(50, mask=torch.zeros(50, dtype=torch.bool))])[0]
    assert prediction.num_frames == 0
    assert (prediction.frame_errors == 0).all()
    assert (prediction.tokens.codes == -1).all()
    assert all(torch.isfinite(v.to_dense()).all() for v in prediction.vectors.values())


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(0, WIDTH), "there are no frames"),
        (torch.zeros(20, 13), "13 wide"),
        (torch.full((20, WIDTH), math.nan), "frame 0 hold NaN"),
    ],
)
def test_a_bad_document_is_named(is_training: bool, features: torch.Tensor, message: str) -> None:
    model = build(**FULL).train(is_training)
    bad = {"features": features, "video_id": 7, "file_names": ["a/b.npy"]}
    with pytest.raises(DataError, match=rf"document 7 \(a/b.npy\): .*{message}"):
        model([bad])


def test_a_document_that_is_too_long_is_named() -> None:
    with pytest.raises(DataError, match=r"document doc0: 129 frames.*ENCODER_CONTEXT"):
        build()([sample(129)])
    with pytest.raises(DataError, match=r"document doc0.*drop.*no window of 10 frames from 9"):
        build(window_mode="drop")([sample(9)])


@pytest.mark.parametrize("file", sorted(PRESETS.glob("rqvae*.yaml")), ids=lambda file: file.stem)
def test_presets_train_and_predict(file: Path) -> None:
    cfg = load_config(str(file), ["MODEL.DEVICE", "cpu"])
    if cfg.MODEL.META_ARCHITECTURE != "DocumentRQVAE":
        pytest.skip("another model")
    model = build_model(cfg)
    width = cfg.MODEL.RQVAE.INPUT_DIM
    samples = [{"features": torch.randn(60, width), "video_id": number} for number in range(2)]
    for iteration in (0, 1):
        model.at_iteration(iteration, 1, lambda: [samples])
    sum(model.train()(samples).values()).backward()
    prediction = model.eval()(samples)[0]
    assert torch.isfinite(prediction.frame_errors).all()
    assert (prediction.tokens.codes >= 0).all()


def test_the_sketch_is_a_config() -> None:
    cfg = load_config(str(PRESETS / "rqvae_seed.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    assert model.rvq.codebooks.shape == (8, 512, cfg.MODEL.RQVAE.LATENT_DIM)
    assert model.rvq.initialized
    assert model.rvq.decay == 0.9
    assert (model.rvq.revive_every, model.overlap_add, model.window_projection) == (0, None, None)
    assert not model.decoder.memory_positions


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("NHEAD", 3, "NHEAD is 3 and LATENT_DIM 128"),
        ("NUM_DECODER_LAYERS", 3, "NUM_DECODER_LAYERS is 3"),
        ("POOLING_TYPE", "slidng_window", "nearest: sliding_window"),
        ("GRADIENT", "rotate", "nearest: rotation"),
        ("WINDOW_MODE", "sam", "ALLOW_GAPS: there is no window mode 'sam'; nearest: same"),
        ("WINDOW_STRIDE", 30, "stride 30 is larger"),
        ("DECAY", 1.0, "DECAY is 1.0"),
        ("WARMUP_FRACTION", -0.5, "WARMUP_FRACTION is -0.5"),
        ("CODEBOOK_SIZE", 0, "CODEBOOK_SIZE is 0"),
        ("CODEBOOK_SIZE", 1, "CODEBOOK_SIZE is 1"),
        ("MIN_VALID_FRAMES", 26, "MIN_VALID_FRAMES is 26, more than WINDOW_SIZE 25"),
        ("POOLING_TYPE", "global", "POSITION_BIAS, LOCAL_MEMORY, OVERLAP_ADD cannot be on"),
        ("LATENT_DIM", 0, "LATENT_DIM is 0"),
        ("CODE_DIM", -1, "CODE_DIM is -1"),
        ("ENCODER_CONTEXT", -1, "ENCODER_CONTEXT is -1"),
    ],
)
def test_contradictions_of_a_config_name_the_key(key: str, value: Any, message: str) -> None:
    file = str(PRESETS / "rqvae_sliding_window.yaml")
    cfg = load_config(file, [f"MODEL.RQVAE.{key}", str(value)])
    with pytest.raises(ConfigError, match=f"MODEL.RQVAE.*{message}"):
        build_model(cfg)


def test_config_defaults_build() -> None:
    from vidseg.projects.rqvae.settings import settings_of

    cfg = load_config(None, [], ["rqvae"])
    settings = settings_of(cfg)
    assert settings["window_size"] == 25
    assert settings["quantizer"]["kmeans_init"]
