"""Every config key is read by some code and explained by a comment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vidseg import plugins
from vidseg.config import get_cfg, load_config
from vidseg.config.node import leaves
from vidseg.config.values import NULLABLE_KEYS

CHECKOUT = Path(__file__).resolve().parents[1]
DECLARATIONS = [
    CHECKOUT / "vidseg" / "config" / "defaults.py",
    *sorted((CHECKOUT / "projects").glob("*/config.py")),
]


def chain_of(node: ast.expr) -> tuple[str, list[str]]:
    """``self.cfg.MODEL.X`` becomes ``("cfg", ["MODEL", "X"])``; the root is its last name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute) and node.attr.isupper():
        names.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr, names
    return (node.id if isinstance(node, ast.Name) else ""), names


class Reads(ast.NodeVisitor):
    """Collects the keys a module reads: in full, or the end of one whose group is a variable."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.endings: set[str] = set()
        self.aliases: dict[str, set[str]] = {}

    def visit_Assign(self, node: ast.Assign) -> None:
        targets = node.targets[0]
        pairs = [(targets, node.value)]
        if isinstance(targets, ast.Tuple) and isinstance(node.value, ast.Tuple):
            starred = any(isinstance(value, ast.Starred) for value in node.value.elts)
            pairs = [] if starred else list(zip(targets.elts, node.value.elts, strict=True))
        for target, value in pairs:
            root, names = chain_of(value)
            if isinstance(target, ast.Name) and names:
                groups = [""] if root == "cfg" else self.aliases.get(root, set())
                keys = {f"{group}{'.'.join(names)}." for group in groups}
                self.aliases.setdefault(target.id, set()).update(keys)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        root, names = chain_of(node)
        if names and isinstance(node.ctx, ast.Load):
            key = ".".join(names)
            if root == "cfg":
                self.full.add(key)
            elif root in self.aliases:
                self.full.update(group + key for group in self.aliases[root])
            else:
                self.endings.add(f".{key}")
        self.generic_visit(node)


def all_reads() -> Reads:
    total = Reads()
    for root in ("vidseg", "projects", "tools"):
        for file in sorted((CHECKOUT / root).rglob("*.py")):
            # The keys of a template exist as soon as it has become a project, which is read then.
            if file not in DECLARATIONS and "templates" not in file.parts:
                reads = Reads()
                reads.visit(ast.parse(file.read_text()))
                total.full |= reads.full
                total.endings |= reads.endings
    return total


def test_every_key_is_read() -> None:
    reads = all_reads()
    cfg = load_config(None, [], list(plugins.discover()))
    unread = [
        key
        for key, _ in leaves(cfg)
        # Names in small letters look like any attribute: the project that has them watches them.
        if key.rpartition(".")[2].isupper()
        and key not in reads.full
        and not any(key.endswith(end) for end in reads.endings)
    ]
    assert not unread, f"drop these keys, or list them in vidseg/config/published.py: {unread}"


def test_every_key_that_is_read_exists() -> None:
    cfg = load_config(None, [], list(plugins.discover()))
    missing = [key for key in all_reads().full if not cfg.has(key)]
    assert not missing


@pytest.mark.parametrize("file", DECLARATIONS, ids=lambda file: file.parent.name)
def test_every_key_has_a_comment(file: Path) -> None:
    lines = file.read_text().splitlines()
    cfg = load_config(None, [], list(plugins.discover()))
    known = {key.rpartition(".")[2] for key, _ in leaves(cfg)}
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        name, is_group = node.targets[0].attr, isinstance(node.value, ast.Call)
        if name not in known or is_group:
            continue
        above = node.lineno - 2
        while lines[above].rstrip().endswith("CfgNode()"):
            above -= 1
        said = lines[above].strip().startswith("#") or "  # " in lines[node.lineno - 1]
        assert said, f"{file}:{node.lineno} {name} has no comment"


def test_no_core_default_is_none_unless_published() -> None:
    none = {key for key, value in leaves(get_cfg()) if value is None}
    assert none <= set(NULLABLE_KEYS)
