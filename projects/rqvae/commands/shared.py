"""What the commands have in common: options of the model, and how it is loaded."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.errors import UserError

__all__ = ["Failures", "add_command", "add_model_options", "build", "load", "positive"]


class Failures:
    """Tells of what was left out, and counts it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: UserError) -> None:
        """Prints why a document is left out."""
        self.count += 1
        print(f"{error.label}: {error}", file=sys.stderr, flush=True)

    @property
    def exit_code(self) -> int:
        """1 if anything was left out."""
        return 1 if self.count else 0


def add_command(commands: Any, name: str, description: str, example: str) -> Any:
    """Adds a parser for a command.

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


def add_model_options(parser: Any, *, required: bool = True) -> None:
    """Adds the options that say which model is meant, and the overrides."""
    parser.add_argument(
        "--config-file", required=required, default="", metavar="F", help="yaml file of the model"
    )
    parser.add_argument(
        "--weights", default="", metavar="W", help="weights file (those of the run in OUTPUT_DIR)"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="P", help="name, module or path; repeat"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config overrides")


def load(args: argparse.Namespace) -> CfgNode:
    """Reads the config of a command; mistakes show before anything heavy is imported."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from vidseg.config import load_config

    return load_config(args.config_file, args.overrides, args.plugin)


def build(cfg: CfgNode, weights: str) -> Any:
    """Builds the model of a config with trained weights, in eval mode.

    Raises:
        UserError: if there are no weights, they do not fit, or the model makes no codes.
    """
    from vidseg.checkpoint import check_complete, find_run_weights, load_weights
    from vidseg.errors import UserError
    from vidseg.modeling import build_model

    file = find_run_weights(weights or cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    model: Any = build_model(cfg)
    if not hasattr(model, "rvq"):
        raise UserError(f"{cfg.MODEL.META_ARCHITECTURE} makes no codes; give a config of rqvae")
    check_complete(load_weights(model, file), model, file)
    return model.eval()


def positive(text: str) -> int:
    """Reads a number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
