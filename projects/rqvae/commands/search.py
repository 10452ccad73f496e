"""``search``: the documents of a codes file that are most similar to one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vidseg.commands import add_command, add_model_options, load_model_config, positive

from .shared import build

__all__ = ["METHODS", "add_parser", "run"]

METHODS = ("A/maxsim", "A/bag", "B", "B/continuous", "C", "C/codes")
"""Those of ``retrieval.METHODS``, which cannot be imported without torch."""

EXAMPLE = """examples:
  python -m vidseg.projects.rqvae search --config-file projects/rqvae/rqvae_sliding_window.yaml \\
      --codes codes.rqc --query weather/a17
  python -m vidseg.projects.rqvae search --config-file projects/rqvae/rqvae_sliding_window.yaml \\
      --codes codes.rqc --query new.npy --method A/bag --output hits.json

The query is the id of a document of the codes file, which is not its own hit, or a file of
features. Methods: A/maxsim and A/bag compare all codes, B the mean over windows quantised again,
B/continuous that mean, C the mean by a trained attention.
"""


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(commands, "search", "Finds similar documents.", EXAMPLE)
    add_model_options(parser)
    parser.add_argument("--codes", required=True, type=Path, metavar="FILE", help="codes file")
    parser.add_argument("--query", required=True, metavar="ID|FILE", help="what to look for")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="(%(default)s)")
    parser.add_argument(
        "--top", type=positive, default=10, metavar="N", help="hits to give (%(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the hits there, json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Searches, prints and writes."""
    from vidseg.files import make_folder, write_atomically

    cfg = load_model_config(args)
    from ..codes_file import CodesFile
    from ..search import search_documents

    codes = CodesFile(args.codes)
    model = build(cfg, args.weights)
    codes.check_model(model)
    if args.output:
        make_folder(args.output.parent, "--output: the folder")
    query = _query(args.query, codes, model)
    hits = search_documents(query, codes, args.method, model=model, num_hits=args.top)
    for rank, hit in enumerate(hits, 1):
        print(f"{rank:3d}  {hit.similarity:+.4f}  {hit.id}")
    if args.output:
        content = {
            "query": query.meta["id"],
            "method": args.method,
            "hits": [vars(hit) for hit in hits],
        }
        text = json.dumps(content, indent=1).encode()
        write_atomically(args.output, lambda file: file.write(text))
    return 0


def _query(word: str, codes: Any, model: Any) -> Any:
    """Finds the document of an id, else encodes a file of features."""
    from vidseg.data.documents import read_documents
    from vidseg.data.feature_files import SUFFIXES
    from vidseg.errors import DataError, nearest

    from ..coding import encode_records

    document = codes.find(word)
    if document is not None:
        return document
    if not Path(word).is_file() or Path(word).suffix not in SUFFIXES:
        close = nearest(word, codes.ids())
        files = f"give an id or a file of features ({', '.join(SUFFIXES)})"
        way_out = f"nearest: {', '.join(close)}" if close else files
        raise DataError(f"--query: {codes.path} holds no document {word!r}; {way_out}")

    def refuse(error: Any) -> None:
        raise error

    records = read_documents(word, "--query")
    (query,) = encode_records(model, records, refuse, codes.header.num_levels)
    query.meta["id"] = word  # a path, which is no id of a document
    return query
