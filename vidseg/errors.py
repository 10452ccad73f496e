"""Errors that a user can cause and act on, and how command lines show them.

Such an error is one sentence that names the file, key or value at fault and the way out; it is
raised where the cause is known and shown, without a traceback, by ``run_command``.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

__all__ = [
    "ConfigError",
    "DataError",
    "ResourceError",
    "UserError",
    "nearest",
    "run_command",
]

_EXIT_INTERRUPTED = 130  # 128 + SIGINT, what shells report

# What the machine refuses, whatever the code does, and the way out.
_MACHINE = {
    errno.ENOSPC: "make room and give the same command again",
    errno.EDQUOT: "make room and give the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and give the command again",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder that you may use, or change its permissions",
    errno.EPERM: "choose a folder that you may use, or change its permissions",
    errno.EIO: "look at the disk or choose a folder on another one",
    errno.EMFILE: "raise the limit on open files (ulimit -n) and give the command again",
}


class UserError(Exception):
    """Reports a wrong request; ``str(error)`` is the whole message."""

    exit_code = 2
    label = "error"


class ConfigError(UserError):
    """Reports an unknown key, a value of the wrong type or an unreadable config file."""

    label = "config error"


class DataError(UserError):
    """Reports missing or broken data: the request was fine, the files are not."""

    exit_code = 1


class ResourceError(UserError):
    """Reports what the machine refuses, such as room on a disk: request and data were fine."""

    exit_code = 1


def nearest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """Gives the choices that look most like ``name``, best first; case is ignored.

    Args:
        name: what the user wrote.
        choices: what exists.
        n: how many to give at most.
    """
    by_folded: dict[str, str] = {}
    for choice in choices:
        by_folded.setdefault(choice.lower(), choice)
    matches = difflib.get_close_matches(name.lower(), by_folded, n=n, cutoff=0.6)
    return [by_folded[match] for match in matches]


def run_command(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Runs the ``main`` of a command line and exits with its code.

    A ``UserError`` is printed as one line on stderr and ends with the error's exit code; so does
    what the machine refuses, such as a full disk, with 1; an interrupt ends with 130; a closed
    output pipe ends quietly; anything else keeps its traceback.

    Args:
        main: takes the arguments without the program name, returns an exit code or None for 0.
    """
    try:
        code = main(sys.argv[1:]) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"{error.label}: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = _EXIT_INTERRUPTED
    except BrokenPipeError:
        # A reader such as `head` closed the pipe: silence the flush at interpreter exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.errno not in _MACHINE:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}; {_MACHINE[error.errno]}", file=sys.stderr)
        code = 1
    sys.exit(code)
