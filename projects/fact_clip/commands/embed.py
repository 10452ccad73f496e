"""``embed``: a list of class names to a file of text embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidseg.commands import add_command, add_config_options, load_model_config

__all__ = ["add_parser", "run"]

EXAMPLE = """examples:
  python -m vidseg.projects.fact_clip embed --input classes.txt --output classes.npz \\
      CLIP.text_provider open_clip CLIP.templates '["{}", "a photo of a person {}"]'
  python -m vidseg.projects.fact_clip embed --input mapping.txt --output classes.npz \\
      CLIP.text_provider sentence CLIP.text_file models/all-MiniLM-L6-v2

The input has one class name on each line, or numbered ones as in mapping.txt. The file is what
CLIP.text_provider file reads as CLIP.text_file: made where an encoder and its weights are, used
where they are not.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(commands, "embed", "Embeds class names as text.", EXAMPLE)
    add_config_options(parser, required=False)
    parser.add_argument("--input", required=True, type=Path, metavar="FILE", help="class names")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=".npz to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Embeds, writes, and names the two classes that are nearest to each other."""
    from vidseg.errors import UserError
    from vidseg.files import make_folder

    if args.output.suffix != ".npz" or args.output.is_dir():
        raise UserError(f"--output {args.output} is no name of a .npz file")
    args.plugin = ["fact_clip", *args.plugin]  # its keys are there without a config file, too
    cfg = load_model_config(args)
    from vidseg.data.class_names import read_class_names

    from ..text import TextSettings, embed_names
    from ..text.file import write_embeddings

    names = read_class_names(args.input)
    settings = TextSettings.from_config(cfg)
    vectors = embed_names(settings, names)
    make_folder(args.output.parent, "--output: the folder")
    write_embeddings(args.output, vectors, names, settings.prompts.templates)
    print(f"{len(names)} classes, {vectors.shape[1]} numbers each -> {args.output}")
    if len(names) > 1:
        cosines = vectors @ vectors.T
        cosines[range(len(names)), range(len(names))] = -1
        first, second = divmod(int(cosines.argmax()), len(names))
        print(f"nearest: {names[first]}, {names[second]} (cosine {cosines.max():.2f})")
    return 0
