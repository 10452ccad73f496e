"""Text models of a few thousand random weights, saved as their libraries save real ones."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch

WIDTH = 8
_PIECES = list(string.ascii_lowercase)


def save_sentence(folder: Path, *, pooling: str = "mean_tokens", seed: int = 0) -> Path:
    """Writes a BERT with the files of sentence-transformers."""
    import transformers

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_PIECES]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"##{w}" for w in _PIECES)]))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words) + len(_PIECES),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    torch.manual_seed(seed)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": False for name in ("mean_tokens", "cls_token", "max_tokens")}
    content = {"word_embedding_dimension": WIDTH, **modes, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(content))
    return folder


def save_clip(folder: Path, *, projection_dim: int = 0, seed: int = 0) -> Path:
    """Writes a CLIP of transformers with both halves, as on the hub.

    With another ``projection_dim`` its config says what its weights are not.
    """
    import transformers

    folder.mkdir()
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = [*_PIECES, *(f"{letter}</w>" for letter in _PIECES), *ends]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 32})
    )
    text = {
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1,
        "projection_dim": projection_dim or WIDTH,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    torch.manual_seed(seed)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def open_clip_config() -> dict[str, Any]:
    """Gives the architecture of a model of open_clip."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": 8, "layers": 1, "width": 64, "patch_size": 4},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,  # that of its tokenizer
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }


def add_open_clip(folder: Path, name: str = "tiny-clip") -> str:
    """Makes the architecture known to open_clip."""
    import open_clip

    (folder / f"{name}.json").write_text(json.dumps(open_clip_config()))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def save_open_clip(path: Path, name: str, *, seed: int = 0) -> Path:
    """Writes random weights."""
    import open_clip

    torch.manual_seed(seed)
    torch.save(open_clip.create_model(name).state_dict(), path)
    return path
