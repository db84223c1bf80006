"""What of a command is code for an interpreter: what follows a shell's `-c`, what a bare shell reads.

As far as it can be known: a program of one's own may run its arguments too. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

_RUNS_C = re.compile(r"(?:ba|da|z|k|mk|a|fi|c|tc)?sh|busybox|python[0-9.]*")
_RUNS_E = re.compile(r"perl[0-9.]*|ruby[0-9.]*|node|php[0-9.]*")
_RUNS_OTHERS = re.compile(r"env|exec|flock|nice|nohup|setsid|stdbuf|sudo|time|timeout|xargs")
_C = re.compile(r"-[A-Za-z]*c.*", re.DOTALL)
_E = re.compile(r"-[A-Za-z]*[eEpr].*|--(?:eval|print|run)(?:=.*)?", re.DOTALL)


def code_of(command: tuple[str, ...]) -> Iterator[int]:
    """Which arguments are code for the interpreter before them."""
    flag: re.Pattern[str] | None = None
    expected = False
    for index, one in enumerate(command):
        if flag is not None and flag.fullmatch(one):
            expected = True
            yield index  # the code may follow without a space
        elif expected and not one.startswith("-"):
            yield index
            return
        if index == 0 or _RUNS_OTHERS.fullmatch(posixpath.basename(command[0])):
            flag = _flag(one) or flag


def reads_code(command: tuple[str, ...]) -> bool:
    """Whether it is an interpreter that has nothing else to run than what comes on its standard input."""
    program, *arguments = command
    return _flag(program) is not None and all(one.startswith("-") for one in arguments)


def _flag(program: str) -> re.Pattern[str] | None:
    """What tells this program that code follows; None for one that is no interpreter."""
    name = posixpath.basename(program)
    if _RUNS_C.fullmatch(name):
        return _C
    return _E if _RUNS_E.fullmatch(name) else None
