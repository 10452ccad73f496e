"""A page of headings, texts, tables and pictures, as Markdown and as one file of HTML."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

__all__ = ["Block", "Heading", "Picture", "Table", "Text", "as_html", "as_markdown"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
img { max-width: 100%; }
figcaption { color: #666; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #18181c; } th, td { border-color: #444; } }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title of the page."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; with ``link`` a file that it leads to."""

    text: str
    link: Path | None = None


@dataclass(frozen=True)
class Table:
    """Cells under a header; the first column is text, the others are figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A png file with a caption."""

    path: Path
    caption: str


Block = Heading | Text | Table | Picture


def as_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """Gives the page as Markdown, with pictures and links relative to its folder."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def as_html(blocks: Sequence[Block], folder: Path) -> str:
    """Gives the page as HTML that holds its pictures; only links lead out of the file.

    Raises:
        OSError: if a picture cannot be read.
    """
    title = next((b.text for b in blocks if isinstance(b, Heading)), "")
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Text):
        return f"[{block.text}]({_target(block.link, folder)})" if block.link else block.text
    if isinstance(block, Picture):
        return f"![{block.caption}]({_target(block.path, folder)})"
    align = ("left", *("right" for _ in block.header[1:]))
    rows = [[cell.replace("|", r"\|") for cell in row] for row in block.rows]
    return tabulate(rows, block.header, tablefmt="pipe", disable_numparse=True, colalign=align)


def _html(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        text = html.escape(block.text)
        if block.link:
            text = f'<a href="{html.escape(_target(block.link, folder))}">{text}</a>'
        return f"<p>{text}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.path.read_bytes()).decode()
        caption = html.escape(block.caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    return tabulate(block.rows, block.header, tablefmt="html", disable_numparse=True)


def _target(path: Path | None, folder: Path) -> str:
    assert path is not None
    relative = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return relative.replace(" ", "%20")
