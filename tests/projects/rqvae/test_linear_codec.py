"""The linear codec: its components, blocks and training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vidseg.config import load_config
from vidseg.errors import ConfigError
from vidseg.projects.rqvae.linear_codec import LinearCodec

D, S, V = 5, 4, 6


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def documents(number: int = 30) -> list[dict[str, Any]]:
    mix = torch.randn(D, D)
    lengths = torch.randint(10, 60, (number,)).tolist()
    return [
        {"video_id": f"d{n}", "features": 3 + torch.randn(length, D).cumsum(0) @ mix}
        for n, length in enumerate(lengths)
    ]


def fitted(samples: list[dict[str, Any]]) -> LinearCodec:
    def batches() -> Iterator[list[dict[str, Any]]]:
        yield samples[:7]
        yield samples[7:]

    codec = LinearCodec(D, S, V, 16, 3, decay=0.97, max_seq_len=16)
    assert codec.at_iteration(0, 10, batches)
    assert not codec.at_iteration(1, 10, batches)
    return codec


def test_components_are_the_principal_ones_of_all_blocks() -> None:
    samples = documents()
    codec = fitted(samples)
    blocks = torch.cat([codec._blocks(sample["features"], None)[0] for sample in samples]).double()
    centred = blocks - blocks.mean(0)
    expected = torch.linalg.svd(centred, full_matrices=False)[2][:V]
    found = codec.components.detach().double()
    torch.testing.assert_close(found.t() @ found, expected.t() @ expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found @ found.t(), torch.eye(V).double(), atol=1e-5, rtol=0)
    latents = torch.cat([codec.latents(sample["features"])[0] for sample in samples])
    variances = latents.var(0)
    assert (variances[:-1] > variances[1:]).all()


def test_a_document_is_decoded_piece_by_piece() -> None:
    samples = documents()
    codec = fitted(samples).eval()
    features = torch.cat([sample["features"] for sample in samples])[:75]
    z, valid = codec.latents(features)
    assert z.shape == (19, V)
    assert valid.all()
    parts = list(codec.decoded_pieces(z[None], valid[None], 75))
    assert [len(y[0]) for _, y in parts] == [16, 16, 16, 16, 11]
    whole = z @ codec.components + codec.mean
    found = torch.cat([y for _, y in parts], 1)[0]
    torch.testing.assert_close(found, whole.view(-1, D)[:75])


def test_predictions_improve_level_by_level() -> None:
    samples = documents()
    codec = fitted(samples).eval()
    prediction = codec(samples[:1])[0]
    length = len(samples[0]["features"])
    assert prediction.tokens.codes.shape == (-(-length // S), 3)
    assert prediction.num_frames == length
    errors = prediction.frame_errors.sum(1)
    assert errors.shape == (4,)
    assert errors[1] > errors[2] > errors[3] > errors[0]


def test_training_moves_the_codebooks_alone_without_a_learning_rate() -> None:
    samples = documents()
    codec = fitted(samples).train()
    components = codec.components.clone()
    codebooks = codec.rvq.codebooks.clone()
    optimizer = torch.optim.AdamW(codec.parameters(), lr=0.0)
    losses = codec(samples[:4])
    sum(losses.values()).backward()
    optimizer.step()
    assert codec.components.grad.isfinite().all()
    assert torch.equal(codec.components, components)
    assert not torch.equal(codec.rvq.codebooks, codebooks)


def test_masked_frames_do_not_count() -> None:
    samples = documents()
    codec = fitted(samples).train()
    state = {name: value.clone() for name, value in codec.state_dict().items()}
    features = torch.randn(20, D)
    mask = torch.arange(20) < 10
    losses = []
    for value in (0.0, 100.0):
        codec.load_state_dict(state)
        own = features.masked_fill(~mask.unsqueeze(1), value)
        losses.append(codec([{"video_id": "x", "features": own, "mask": mask}]))
    for name, loss in losses[0].items():
        assert torch.equal(loss, losses[1][name])
    nothing = codec([{"video_id": "x", "features": features, "mask": torch.zeros(20).bool()}])
    assert sum(nothing.values()) == 0


def test_blocks_that_overlap_are_refused() -> None:
    cfg = load_config("projects/rqvae/rqvae_linear.yaml")
    assert LinearCodec.from_config(cfg)["block"] == 12
    cfg.MODEL.RQVAE.WINDOW_SIZE = 25
    with pytest.raises(ConfigError, match=r"WINDOW_SIZE to WINDOW_STRIDE \(12\)"):
        LinearCodec.from_config(cfg)
    with pytest.raises(ValueError, match="code_dim 21: blocks of 4 frames have 1 to 20"):
        LinearCodec(D, S, 21, 16, 3)
