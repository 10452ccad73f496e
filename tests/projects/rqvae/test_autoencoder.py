"""The autoencoder: what codes depend on and what not, masks, lengths, gradients."""

from __future__ import annotations

import copy
import resource
from typing import Any

import pytest
import torch

from tests.projects.rqvae.support import FULL, GLOBAL, WIDTH, build, document, padded
from vidseg.projects.rqvae import DocumentRQVAE
from vidseg.projects.rqvae.documents import DocumentCodes

SETTINGS = pytest.mark.parametrize(
    "settings",
    [FULL, {}, GLOBAL, {**FULL, "window_mode": "tail"}, {"code_dim": 0, "memory_positions": False}],
    ids=["full", "plain", "global", "tail", "seed"],
)


@SETTINGS
def test_shapes(settings: dict[str, Any]) -> None:
    model = build(**settings)
    x, mask = padded([document(50), document(31, 1)], 50)
    for is_training in (True, False):
        x_recon, loss, codes = model.train(is_training)(x, mask)
        num = 1 if settings is GLOBAL else model.grid.count(50)
        assert (x_recon.shape, loss.shape, codes.shape) == (x.shape, (), (2, num, 8))
        assert codes.dtype == torch.int64
        assert torch.isfinite(x_recon).all()


@SETTINGS
def test_a_document_has_the_same_codes_in_any_batch(settings: dict[str, Any]) -> None:
    model = build(**settings)
    documents = [document(length, length) for length in (50, 23, 3, 37)]
    alone = [model.encode(one) for one in documents]
    for length in (50, 51, 60, 128):
        batch = model.encode(*padded(documents, length))
        _, _, codes = model(*padded(documents, length))
        for one, same, row in zip(alone, batch, codes, strict=True):
            assert torch.equal(one.codes, same.codes)
            assert torch.equal(one.codes, row[: len(one.codes)])
            assert (row[len(one.codes) :] == -1).all()
            assert one.num_frames == same.num_frames


@SETTINGS
@pytest.mark.parametrize("with_gradients", [False, True])
def test_decoding_what_was_encoded_is_forward_bit_by_bit(
    settings: dict[str, Any], with_gradients: bool
) -> None:
    model = build(**settings)
    x, mask = padded([document(50), document(23, 1), document(3, 2)], 50)
    mask[1, 4:9] = False
    with torch.set_grad_enabled(with_gradients):
        x_recon, _, _ = model(x, mask)
        frames = model.decode(model.encode(x, mask))
    for one, row in zip(frames, x_recon, strict=True):
        assert torch.equal(one, row[: len(one)])
        assert (row[len(one) :] == 0).all()
    assert [len(one) for one in frames] == [50, 23, 3]


@pytest.mark.parametrize("settings", [FULL, GLOBAL], ids=["full", "global"])
def test_long_documents_decode_to_forward_too(settings: dict[str, Any]) -> None:
    model = build(**{**settings, "encoder_context": 6})
    x = document(300)
    assert torch.equal(model.decode(model.encode(x)), model(x[None])[0][0])


def test_codes_of_fewer_levels_are_the_first_ones() -> None:
    model = build(**FULL)
    whole, half = model.encode(document(50)), model.encode(document(50), num_quantizers=4)
    assert torch.equal(whole.codes[:, :4], half.codes[:, :4])
    assert (half.codes[:, 4:] == -1).all()
    cut = DocumentCodes(whole.codes[:, :4], whole.window_mask, whole.num_frames)
    assert torch.equal(model.decode(half), model.decode(cut))
    assert not torch.equal(model.decode(half), model.decode(whole))


def test_scale_and_length_are_restored() -> None:
    model = build(**FULL)
    with torch.no_grad():
        model.output_head.weight.zero_()
        model.output_head.bias.zero_()
    frames = model.decode(model.encode(document(37)))
    torch.testing.assert_close(frames, model.standardisation.mean.expand(37, -1))


@SETTINGS
def test_masked_frames_do_not_matter(settings: dict[str, Any]) -> None:
    model = build(**settings)
    x, mask = padded([document(50), document(40, 1)], 50)
    mask[0, 10:20] = False
    other = x.clone()
    other[~mask] = torch.nan
    for is_training in (False, True):
        model.train(is_training)
        found = []
        for one in (x, other):
            torch.manual_seed(0)
            found.append(copy.deepcopy(model)(one, mask, details=True))
        first, second = found
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(first.x_recon, second.x_recon)
        assert torch.equal(first.loss, second.loss)


@SETTINGS
def test_documents_without_valid_frames(settings: dict[str, Any]) -> None:
    model = build(**settings)
    x, mask = padded([document(50), document(50, 1)], 50)
    mask[1] = False
    x_recon, loss, codes = model(x, mask)
    assert (x_recon[1] == 0).all()
    assert (codes[1] == -1).all()
    alone = model(x[:1])
    assert torch.equal(codes[:1], alone[2])
    torch.testing.assert_close(loss, alone[1])
    tokens = model.encode(x[1], mask[1])
    assert tokens.num_frames == 50
    assert not tokens.window_mask.any()
    assert (model.decode(tokens) == 0).all()


@pytest.mark.parametrize("settings", [{}, GLOBAL], ids=["sliding", "global"])
def test_windows_need_their_valid_frames(settings: dict[str, Any]) -> None:
    model = build(min_valid_frames=8, **settings)
    masks = [model.encode(document(length)).window_mask for length in (7, 9)]
    assert [bool(mask.any()) for mask in masks] == [False, True]
    x, mask = padded([document(9)], 20)
    assert model.encode(x[0], mask[0]).window_mask.any()
    mask[0, 3:5] = False
    assert not model.encode(x[0], mask[0]).window_mask.any()


@SETTINGS
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_gradients_reach_everything_and_are_finite(
    settings: dict[str, Any], quantised: bool
) -> None:
    model = build(fitted=quantised, loss_cosine=0.5, loss_delta=0.5, **settings).train()
    x, mask = padded([document(50), document(3, 1), document(50, 2)], 50)
    mask[2] = False
    with torch.autograd.detect_anomaly(check_nan=True):
        _, loss, _ = model(x, mask)
        loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # Softmax ignores a constant: the gradient of that bias is 0 but for rounding.
        if "table" not in name and "mean" not in name and name != "pooling.attention.2.bias":
            assert parameter.grad.abs().sum() > 0, name


def test_a_batch_of_masked_documents_only() -> None:
    model = build(**FULL).train()
    x = document(50)[None]
    _, loss, codes = model(x, torch.zeros(1, 50, dtype=torch.bool))
    loss.backward()
    assert (codes == -1).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_codes_do_not_depend_on_the_pieces() -> None:
    short = build(**FULL, max_seq_len=80)
    x = document(400)
    want = None
    for length in (80, 100, 128, 400):
        model = build(**FULL, max_seq_len=length)
        state = {k: v for k, v in short.state_dict().items() if "positional_queries" not in k}
        model.load_state_dict(state, strict=False)
        codes = model.encode(x).codes
        want = codes if want is None else want
        assert torch.equal(codes, want)


def test_long_documents_need_a_context() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"129 frames.*128.*ENCODER_CONTEXT.*MAX_SEQ_LEN"):
        model.encode(document(129))
    with pytest.raises(ValueError, match=r"pieces of max_seq_len 24.*raise"):
        build(**FULL, max_seq_len=24).encode(document(129))


def test_a_crop_of_a_long_document_is_trained_on_any_part_of_the_clock() -> None:
    model = build(**FULL).train()
    _, loss, _ = model(document(20)[None])
    loss.backward()
    gradient = model.positional_queries.table.grad
    assert gradient is not None
    used = gradient.abs().sum(1).nonzero()[:, 0]
    assert len(used) == 20
    assert used[-1] - used[0] == 19
    assert used[0] > 0  # by the seed of the test


@pytest.mark.slow
def test_memory_is_linear_in_length() -> None:
    model = build(**FULL)

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MiB

    model.decode(model.encode(document(5_000)))
    before = peak()
    x = document(100_000)
    tokens = model.encode(x)
    frames = model.decode(tokens)
    assert frames.shape == x.shape
    assert len(tokens.codes) == 25_000
    # 100 000 x 100 000 values would be 37 GiB; input, latents and output are 25 MiB.
    assert peak() - before < 400


def test_global_and_sliding_share_names_of_parameters() -> None:
    sliding, whole = build(**FULL).state_dict(), build(heads=2, **GLOBAL).state_dict()
    assert set(whole) <= set(sliding)
    extra = {name.split(".")[0] for name in set(sliding) - set(whole)}
    assert extra == {"pooling", "window_projection", "overlap_add"}
    assert all(sliding[name].shape == tensor.shape for name, tensor in whole.items())


@pytest.mark.parametrize("settings", [FULL, GLOBAL], ids=["full", "global"])
def test_mixed_precision(settings: dict[str, Any]) -> None:
    model = build(**settings).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(document(50)[None], details=True)
    found.loss.backward()
    assert found.loss.dtype == found.z.dtype == found.x_recon.dtype == torch.float32
    assert torch.isfinite(found.loss)
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = document(50)
        assert torch.equal(model.decode(model.encode(x)), model(x[None])[0][0])


def test_compiles() -> None:
    model = build(**FULL)
    x = document(50)[None]
    z_q = model(x, details=True).z_q
    mask = torch.ones(z_q.shape[:2], dtype=torch.bool)
    compiled = torch.compile(model._decode, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(z_q, mask, 50), model._decode(z_q, mask, 50))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_decoder_layers": 3}, "3 layers.*even"),
        ({"latent_dim": 30}, "latent_dim 30"),
        ({"pooling_type": "mean"}, "'mean'.*sliding_window"),
        ({"pooling_type": "global", "overlap_add": True}, "overlap_add.*sliding_window"),
        ({"window_stride": 11}, "stride 11 is larger than window 10"),
        ({"warmup_fraction": 1.5}, "warmup_fraction"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(fitted=False, **settings)


def test_unsuitable_features_are_refused() -> None:
    model = build(**FULL)
    with pytest.raises(ValueError, match=rf"13 wide.*{WIDTH}.*INPUT_DIM"):
        model(torch.zeros(1, 20, 13))
    with pytest.raises(ValueError, match="no frames"):
        model.encode(torch.zeros(0, WIDTH))
    with pytest.raises(ValueError, match=r"document 1: there are no frames"):
        model.encode([document(20), torch.zeros(0, WIDTH)])
    with pytest.raises(ValueError, match=r"mask must be bool \(1, 20\)"):
        model(torch.zeros(1, 20, WIDTH), torch.ones(1, 19, dtype=torch.bool))


@pytest.mark.parametrize("is_training", [False, True])
def test_values_that_are_no_numbers_are_refused(is_training: bool) -> None:
    model = build(**FULL).train(is_training)
    x = torch.stack([document(20), document(20, 1)])
    x[1, 7, 3] = torch.nan
    with pytest.raises(ValueError, match="frame 7 of document 1 hold NaN"):
        model(x)
    with pytest.raises(ValueError, match=r"document 1: .*frame 7.* hold NaN"):
        model.encode(x)


def test_features_of_any_dtype_are_taken() -> None:
    model = build(**FULL)
    x = document(20).round()[None]
    want = model(x)
    for dtype in (torch.float64, torch.bfloat16, torch.int64):
        x_recon, loss, codes = model(x.to(dtype))
        assert torch.equal(codes, want[2])
        assert torch.equal(x_recon, want[0])
        assert loss == want[1]
        assert torch.equal(model.encode(x[0].to(dtype)).codes, codes[0])


def test_a_training_loop_needs_no_config() -> None:
    torch.manual_seed(0)
    model = DocumentRQVAE(WIDTH, 32, 16, 4, 10, 4, 128, 1, 2, 4, 0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x, mask = padded([document(50), document(31, 1)], 50)
    x = (x - 5) / 3
    losses = []
    for _ in range(60):
        x_recon, loss, codes = model(x, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    x_recon, _, codes = model.eval()(x, mask)
    valid = codes[codes[..., 0] >= 0]
    assert (valid >= 0).all()
    assert all(len(level.unique()) > 4 for level in valid.unbind(1))
    assert torch.equal(model.decode(model.encode(x[0])), x_recon[0])


def test_codes_that_do_not_fit_are_refused() -> None:
    model = build(**FULL)
    tokens = model.encode(document(50))
    with pytest.raises(ValueError, match="53 frames has 14 windows here, not 13"):
        model.decode(DocumentCodes(tokens.codes, tokens.window_mask, 53))
    codes = tokens.codes.clone()
    codes[3, 2] = 16
    with pytest.raises(ValueError, match="code 16"):
        model.decode(DocumentCodes(codes, tokens.window_mask, 50))
