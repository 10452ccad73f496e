"""Text embeddings: prompts, providers without a library, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError, UserError
from vidseg.projects.fact_clip import add_config
from vidseg.projects.fact_clip.text import Prompts, TextSettings, embed_classes, embed_names
from vidseg.projects.fact_clip.text.words import hashed_direction

NAMES = ["background", "cut_tomato", "cut_cheese", "peel_tomato", "serve salad onto_plate"]


def config(**clip: Any) -> CfgNode:
    cfg = get_cfg()
    add_config(cfg)
    cfg.merge_from_list([word for key, value in clip.items() for word in (f"CLIP.{key}", value)])
    return cfg


def write_file(path: Path, names: list[str], vectors: Any = None, **more: Any) -> str:
    rows = np.eye(len(names), 4, dtype=np.float32) if vectors is None else vectors
    np.savez(path, embeddings=rows, names=np.array(names), **more)
    return str(path)


def test_phrases() -> None:
    prompts = Prompts(name_map={"cut_cheese": "slicing_the cheese"})
    phrases = [prompts.phrase(name) for name in [*NAMES, "SIL", "__a  b_"]]
    assert phrases == [
        "background, no action",
        "cut tomato",
        "slicing_the cheese",
        "peel tomato",
        "serve salad onto plate",
        "background, no action",
        "a b",
    ]
    both = Prompts(templates=("{}", "a photo of {}, twice {}"))
    assert both.texts("cut_tomato") == ["cut tomato", "a photo of cut tomato, twice cut tomato"]


def test_words_are_shared_directions() -> None:
    vectors = embed_classes(config(), NAMES)
    assert vectors.shape == (5, 256)
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(5), atol=1e-6)
    cosines = vectors @ vectors.T
    assert cosines[1, 2] > 0.4  # cut
    assert cosines[1, 3] > 0.4  # tomato
    assert abs(cosines[2, 3]) < 0.2
    expected = hashed_direction("cut", 256) + hashed_direction("tomato", 256)
    assert np.allclose(vectors[1], expected / np.linalg.norm(expected), atol=1e-6)


def test_directions_are_the_same_everywhere() -> None:
    assert np.allclose(
        hashed_direction("tomato", 4), [-0.55011589, -0.45954533, -0.49036753, 0.4957119], atol=1e-6
    )


def test_hash_shares_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    vectors = embed_classes(config(text_provider="hash", embed_dim=512), NAMES)
    assert vectors.shape == (5, 512)
    assert (vectors @ vectors.T - torch.eye(5)).abs().max() < 0.2
    assert "for tests" in caplog.text


def test_a_class_is_the_mean_of_its_prompts() -> None:
    templates = ["{}", "a person doing {}"]
    one, other = (embed_classes(config(templates=[t]), NAMES) for t in templates)
    mean = (one + other) / 2
    expected = mean / mean.norm(dim=1, keepdim=True)
    assert torch.allclose(embed_classes(config(templates=templates), NAMES), expected, atol=1e-6)


def test_a_map_gives_other_phrases(caplog: pytest.LogCaptureFixture) -> None:
    cfg = config(name_map=["cut_tomato = slicing tomato", "peel_tomatoes=x"])
    with caplog.at_level(logging.WARNING):
        mapped = embed_classes(cfg, NAMES)
    assert torch.equal(mapped[1], embed_classes(config(), ["slicing_tomato"])[0])
    assert "no class is called 'peel_tomatoes'; nearest: peel_tomato" in caplog.text


def test_classes_that_cannot_be_told_apart_are_named(caplog: pytest.LogCaptureFixture) -> None:
    embed_classes(config(), ["take_cup", "cup_take", "put_cup"])
    assert "'take_cup' and 'cup_take' have the same text embedding" in caplog.text


def test_a_file_is_asked_by_name_or_phrase(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.npz", ["peel tomato", "background", "cut_tomato"])
    cfg = config(text_provider="file", text_file=path, name_map=["carve=cut tomato"])
    vectors = embed_classes(cfg, ["background", "carve", "peel_tomato"])
    assert torch.equal(vectors, torch.eye(4)[[1, 2, 0]])


def test_a_file_need_not_hold_unit_vectors(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.npz", ["a", "b"], np.array([[3, 4], [0, 1e-20]]))
    assert np.allclose(
        embed_names(TextSettings("file", path), ["a", "b"]), [[0.6, 0.8], [0, 1]], atol=1e-6
    )


def test_a_file_may_lie_below_the_data_set_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    write_file(tmp_path / "a.npz", ["a"])
    assert embed_names(TextSettings("file", "a.npz"), ["a"]).shape == (1, 4)


def test_signs_part_words() -> None:
    cfg = config(name_map=["a=Cut_tomato,  cheese!", "b=cheese tomato (cut)"])
    first, second = embed_classes(cfg, ["a", "b"])
    assert torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "vectors", "message"),
    [
        (
            ["cut_tomatoes"],
            None,
            "class 'cut_tomato'; nearest: cut_tomatoes; .*embed",
        ),
        (["x"], None, "no embedding of the class 'cut_tomato'; nearest: none of its 1"),
        (["cut_tomato", "a"], np.eye(3), "has 3 embeddings, but 2 names"),
        (["cut_tomato", "cut_tomato"], None, "names 'cut_tomato' twice"),
        (["cut_tomato", "a"], np.array([[1.0, 2], [np.nan, 1]]), "'a' is zero or holds NaN"),
        (["cut_tomato", "a"], np.zeros((2, 3)), "'cut_tomato' is zero or holds NaN"),
        (["cut_tomato"], np.zeros(3), r"embeddings has shape \(3,\) and type float64"),
        (["cut_tomato"], np.array([["a"]]), "type <U1, expected real numbers"),
    ],
)
def test_files_that_do_not_fit(
    names: list[str], vectors: Any, message: str, tmp_path: Path
) -> None:
    path = write_file(tmp_path / "text.npz", names, vectors)
    with pytest.raises(UserError, match=message) as caught:
        embed_names(TextSettings("file", path), ["cut_tomato"])
    assert path in str(caught.value)


def test_what_is_no_file_of_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    settings = TextSettings("file", str(path))

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            embed_names(settings, ["a"])
        assert str(path) in str(caught.value)

    refused("does not exist; .*embed")
    path.write_bytes(b"PK\x03\x04 torn")
    refused("damaged or no .npz")
    np.savez(path, embeddings=np.eye(2), names=np.array(["a", "b"], object))
    refused("pickled objects; save the names as an array of text")
    np.savez(path, embedding=np.eye(2))
    refused("needs the arrays embeddings and names, found embedding;")
    with path.open("wb") as file:
        np.save(file, np.eye(2))
    refused("one bare array")
    path.write_bytes(path.read_bytes()[:20])
    refused("damaged or no .npz")


@pytest.mark.parametrize(
    ("clip", "names", "message"),
    [
        ({"text_provider": "wordz"}, ["a"], "'wordz' is not registered; nearest: words"),
        ({"text_provider": "file"}, ["a"], "needs CLIP.text_file"),
        ({"templates": []}, ["a"], "CLIP.templates is empty"),
        ({"templates": ["a photo"]}, ["a"], "'a photo' has no {} where the class goes"),
        ({"name_map": ["a: b"]}, ["a"], "'a: b' is no pair"),
        ({"name_map": ["a=b", "a=c"]}, ["a"], "names 'a' twice"),
        ({"text_file": "a.npz"}, ["a"], "CLIP.text_file is 'a.npz', which .* words does not read"),
        ({"text_model": "x", "text_provider": "file"}, ["a"], "CLIP.text_model is 'x'"),
        ({"embed_dim": -1}, ["a"], "CLIP.embed_dim -1 is negative"),
        ({}, [], "no classes"),
        ({}, ["a", "b", "a"], "two classes are called 'a'"),
        ({}, ["a", " "], "the name of class 1 is empty"),
        ({}, ["a", "?!"], r"'\?!' has no word"),
    ],
)
def test_requests_that_cannot_be_met(clip: dict[str, Any], names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        embed_classes(config(**clip), names)


def test_the_width_of_a_file_must_be_that_of_the_config(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.npz", ["a"])
    with pytest.raises(ConfigError, match=r"CLIP.embed_dim is 512, but .* gives 4 numbers"):
        embed_classes(config(text_provider="file", text_file=path, embed_dim=512), ["a"])
