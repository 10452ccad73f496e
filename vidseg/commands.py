"""What ``python -m vidseg.projects.NAME COMMAND`` has in common in all projects.

A command is a module with ``add_parser(commands)``, which calls ``add_command`` and sets ``run`` as
a default, and ``run(args) -> int``, which gives the exit code. Nothing here imports torch, so that
``--help`` and mistakes of the command line show at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.errors import UserError

__all__ = [
    "Command",
    "Failures",
    "add_command",
    "add_config_options",
    "add_model_options",
    "build_trained",
    "load_model_config",
    "non_negative",
    "parse_command",
    "positive",
    "split_overrides",
    "use_run",
]

_CODES = """
Each command has a --help of its own. Exit codes: 0, 1 if data is damaged, 2 if the command is.
"""


class Command(Protocol):
    """A module with a command."""

    def add_parser(self, commands: Any) -> None:
        """Adds the command to what ``add_subparsers`` gave."""


class Failures:
    """Tells of what was left out, and counts it.

    Args:
        remark: said after every reason.
    """

    def __init__(self, remark: str = "") -> None:
        self.count = 0
        self._remark = remark

    def __call__(self, error: UserError) -> None:
        """Prints why something is left out."""
        self.count += 1
        print(f"{error.label}: {error}{self._remark}", file=sys.stderr, flush=True)

    @property
    def exit_code(self) -> int:
        """1 if anything was left out."""
        return 1 if self.count else 0


def parse_command(
    argv: list[str],
    commands: Iterable[Command],
    *,
    module: str,
    description: str,
    example: str,
) -> argparse.Namespace:
    """Reads the command line of a project.

    KEY VALUE pairs may stand anywhere, also after an ``--input`` for any number of paths.

    Args:
        argv: arguments without the program name.
        commands: modules, see ``Command``.
        module: name of the project's package.
        description: one sentence.
        example: a command line or several, shown at the end of the help.

    Returns:
        What was given; ``run(args)`` of it runs the command.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=example + _CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        command.add_parser(found)
    if not argv or argv[0] not in found.choices:
        return parser.parse_args(argv)
    # Parsers with commands cannot read overrides between options by themselves.
    args: argparse.Namespace = found.choices[argv[0]].parse_intermixed_args(argv[1:])
    if "overrides" in args and isinstance(getattr(args, "input", None), list):
        args.input, trailing = split_overrides(args.input)
        args.overrides = [*trailing, *args.overrides]
    return args


def add_command(commands: Any, name: str, description: str, example: str) -> Any:
    """Adds the parser of a command.

    Args:
        commands: what ``add_subparsers`` gave.
        name: of the command.
        description: one sentence.
        example: shown at the end of its help.
    """
    return commands.add_parser(
        name,
        help=description[0].lower() + description[1:].rstrip("."),
        description=description,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_options(parser: Any, *, required: bool = True) -> None:
    """Adds the options that say which config is meant, and the overrides.

    Args:
        parser: of a command.
        required: whether it cannot do without a config file.
    """
    parser.add_argument(
        "--config-file", required=required, default="", metavar="F", help="yaml file of the model"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="P", help="name, module or path; repeat"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config overrides")


def add_model_options(parser: Any, *, required: bool = True) -> None:
    """Adds the options that say which trained model is meant, and the overrides.

    Args:
        parser: of a command.
        required: whether it cannot do without a config; if not, ``--run`` may stand for one.
    """
    add_config_options(parser, required=required)
    parser.add_argument(
        "--weights", default="", metavar="W", help="weights file (those of the run in OUTPUT_DIR)"
    )
    if not required:
        parser.add_argument(
            "--run", dest="run_dir", type=Path, metavar="DIR", help="a finished run"
        )


def use_run(args: argparse.Namespace) -> None:
    """Lets ``--run``, if it is given, stand for the config and the weights of the run.

    Raises:
        DataError: if the folder holds no run.
    """
    from vidseg.errors import DataError

    if not args.run_dir:
        return
    args.config_file = str(args.run_dir / "config.yaml")
    args.weights = args.weights or str(args.run_dir / "model_final.pth")
    if not Path(args.config_file).is_file():
        raise DataError(f"--run {args.run_dir} is no run: it has no config.yaml")


def load_model_config(args: argparse.Namespace) -> CfgNode:
    """Reads the config that the options of ``add_config_options`` name.

    Raises:
        ConfigError: if it is wrong; before anything heavy is imported.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from vidseg.config import load_config

    return load_config(args.config_file or None, args.overrides, args.plugin)


def build_trained(
    cfg: CfgNode, weights: str, check: Callable[[Any], object] = lambda model: None
) -> Any:
    """Builds the model of a config with trained weights, in eval mode.

    Args:
        cfg: of the model.
        weights: file; ``""``: that of ``MODEL.WEIGHTS``, else of the run in ``OUTPUT_DIR``.
        check: raises if the command cannot do with such a model; called before weights are read.

    Raises:
        UserError: if there are no weights, or they do not fit.
    """
    from vidseg.checkpoint import check_complete, find_run_weights, load_weights
    from vidseg.modeling import build_model

    file = find_run_weights(weights or cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    model: Any = build_model(cfg)
    check(model)
    check_complete(load_weights(model, file), model, file)
    return model.eval()


def split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Parts what an option for any number of paths took into paths and KEY VALUE pairs.

    Args:
        words: as they stood on the command line.

    Returns:
        The paths, and all from the first word on that is a key and no path.
    """
    keys = (place for place, word in enumerate(words) if _is_key(word))
    first = next(keys, len(words))
    return words[:first], words[first:]


def _is_key(word: str) -> bool:
    """Tells ``INPUT.MIN_SIZE_TEST`` from a path."""
    if not word.replace(".", "").replace("_", "").isalnum() or Path(word).exists():
        return False
    return word.isupper() or _is_meant_as_key(word)


def _is_meant_as_key(word: str) -> bool:
    """Tells ``Loss.pc``, and ``model.device``, which the config corrects, from a missing file."""
    group, _, name = word.partition(".")
    if not name:
        return False
    from vidseg.config import get_cfg

    if not group[0].isupper() and group.upper() not in get_cfg():
        return False
    from vidseg.data.feature_files import SUFFIXES
    from vidseg.video.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    return Path(word).suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES | set(SUFFIXES)


def positive(text: str) -> int:
    """Reads a number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def non_negative(text: str) -> int:
    """Reads a number of 0 or more."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number
