"""Search among any number of coded documents, in one pass over their codes.

Only the codes of a block of documents and the best hits so far are in memory, so that documents
may come straight from a codes file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vidseg.errors import ConfigError, nearest

from .documents import DocumentCodes
from .retrieval import METHODS, aggregate
from .similarity import collect

__all__ = ["Hit", "search_documents"]

_WINDOWS_AT_ONCE = 1 << 14  # 4 MiB of vectors that are 64 wide


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Attributes:
        id: of the document.
        similarity: to the query, in [-1, 1].
    """

    id: str
    similarity: float


def search_documents(
    query: DocumentCodes,
    documents: Iterable[DocumentCodes],
    method: str = "A/maxsim",
    *,
    model: Any,
    num_hits: int = 10,
) -> list[Hit]:
    """Ranks documents by their similarity to one; a document of the query's id is left out.

    Args:
        query: what to look for.
        documents: where to look, such as a ``CodesFile``; ``meta["id"]`` names each.
        method: one of ``retrieval.METHODS``.
        model: whose codes these are; gives codebooks, statistics and, for method C, the head.
        num_hits: how many to give at most.

    Returns:
        The best, best first; of equal ones the earlier in ``documents``.

    Raises:
        ConfigError: if there is no such method, or the model has no head for it.
    """
    head = getattr(model, "head", None)
    if method not in METHODS:
        close = ", ".join(nearest(method, METHODS) or METHODS)
        raise ConfigError(f"no retrieval method is called {method!r}; nearest: {close}")
    if method.startswith("C") and head is None:
        raise ConfigError(
            f"method {method} needs the weights of a DocumentRetriever (rqvae_contrastive.yaml), "
            f"and {type(model).__name__} has no head; choose a method of A or B"
        )

    def describe(document: DocumentCodes) -> Tensor:
        codebooks = model.rvq.codebooks
        return aggregate(
            document.codes.to(codebooks.device),
            document.window_mask.to(codebooks.device),
            method,
            codebooks=codebooks,
            statistics=model.code_statistics,
            head=head,
            bag_levels=model.bag_levels,
        ).detach()

    wanted = collect([describe(query)])
    best, names = np.empty(0, np.float32), np.empty(0, object)
    for block in _blocks(documents, query.meta.get("id")):
        similarity = collect([describe(document) for document in block]).similarities(wanted)[0]
        best = np.concatenate([best, similarity.numpy()])
        names = np.concatenate([names, [document.meta["id"] for document in block]])
        order = np.argsort(-best, kind="stable")[:num_hits]
        best, names = best[order], names[order]
    return [Hit(str(name), float(value)) for name, value in zip(names, best, strict=True)]


def _blocks(documents: Iterable[DocumentCodes], own: Any) -> Iterator[list[DocumentCodes]]:
    """Groups all documents but one, so that the windows of a group are bounded."""
    block: list[DocumentCodes] = []
    num_windows = 0
    for document in documents:
        if document.meta["id"] == own:
            continue
        block.append(document)
        num_windows += max(1, len(document.codes))
        if num_windows >= _WINDOWS_AT_ONCE:
            yield block
            block, num_windows = [], 0
    if block:
        yield block
