"""From arguments to an exit code: runs the command, and tells every error as code, what, why and fix."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import CycloptsError

from switchgear.cli import VALUED, exits
from switchgear.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from switchgear.errors import SwitchgearError

_GLOBAL = frozenset({*VALUED, "--json"})


def run(tokens: Sequence[str]) -> int:
    """Run a command; returns its exit code and never raises."""
    arranged = globals_last(tokens)
    as_json = "--json" in arranged
    try:
        result: object = app(arranged, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        from switchgear.errors import UsageError

        path = " ".join(error.command_chain or ())
        fix = f"`switchgear {path} --help` shows how".replace("  ", " ")
        return _told(UsageError(str(error), fix=fix), as_json=as_json)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.USAGE
    except BrokenPipeError:
        # The reader of our output left, such as `head`; the interpreter must not flush into it again.
        sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lives until the end
        return exits.OK
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last one to catch it
        return _failed(error, as_json=as_json)
    return result if isinstance(result, int) else exits.OK


def globals_last(tokens: Sequence[str]) -> list[str]:
    """Shared options that stand before the command, moved behind it: `switchgear --json task ls`."""
    moved: list[str] = []
    index = 0
    while index < len(tokens) and tokens[index].partition("=")[0] in _GLOBAL:
        width = 2 if tokens[index] in VALUED else 1
        moved += tokens[index : index + width]
        index += width
    rest = list(tokens[index:])
    at = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:at], *moved, *rest[at:]]


def text_of(error: SwitchgearError) -> str:
    """An error for people: code and what, then why and fix on lines of their own."""
    lines = [f"{error.code}: {error.what}"]
    if error.why:
        lines.append(f"  why: {error.why}")
    if error.fix:
        lines.append(f"  fix: {error.fix}")
    return "".join(f"{line}\n" for line in lines)


def _failed(error: BaseException, *, as_json: bool) -> int:
    from switchgear.errors import SwitchgearError

    if isinstance(error, SwitchgearError):
        return _told(error, as_json=as_json)
    if isinstance(error, KeyboardInterrupt):
        return exits.INTERRUPTED
    unexpected = SwitchgearError(
        f"unexpected {type(error).__name__}: {error}",
        why="this is a fault of Switchgear",
        fix=f"report it with {_log(error)}",
    )
    _told(unexpected, as_json=as_json)
    return exits.BUG


def _told(error: SwitchgearError, *, as_json: bool) -> int:
    code = exits.code_of(error)
    if as_json:
        from switchgear.cli.output import document

        told = {
            "code": error.code,
            "what": error.what,
            "why": error.why,
            "fix": error.fix,
            "exit_code": code,
        }
        sys.stderr.write(document("error", told).decode() + "\n")
    else:
        sys.stderr.write(text_of(error))
    return code


def _log(error: BaseException) -> Path:
    """Write the traceback where a report can take it from."""
    import os
    import tempfile
    import traceback
    from pathlib import Path

    descriptor, name = tempfile.mkstemp(prefix="switchgear-crash-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"switchgear {' '.join(sys.argv[1:])}\n")
        traceback.print_exception(error, file=file)
    return Path(name)
