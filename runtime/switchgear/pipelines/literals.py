"""The texts of a step that stand as they are written: what a step cannot take, and `${{ }}` where it is code or text.

Above: `reading`. Below: the step's spec, which has the rules for most of them. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from switchgear.errors import UsageError
from switchgear.pipelines import interpreters, template
from switchgear.pipelines.document import Document, Path
from switchgear.pipelines.model import Step
from switchgear.pipelines.table import STRUCTURE, Table
from switchgear.steps.sources import git
from switchgear.steps.spec import StepSpec, container

_VARIABLE = re.compile(r"(?!self$)[A-Za-z_][A-Za-z0-9_]{0,127}")
_SPEC = StepSpec()
_AS_WRITTEN = ("needs", "interpreter", "secrets", "caches", "outputs", "exclude")
_FILLED = "`run`, `image`, `workdir`, `env`, `stdin` and the sources of mounts"


def check(table: Table, step: Step) -> None:
    """Tell what the step's spec would refuse, and values that would be filled into code, or not at all."""
    for name in _AS_WRITTEN:
        _check_unfilled(table, table.at(name), table.raw(name))
    matrix, mounts = table.raw("matrix"), table.raw("mounts")
    for axis, values in cast("dict[str, Any]", matrix if isinstance(matrix, dict) else {}).items():
        if isinstance(values, list):  # a text names the list that is filled in
            _check_unfilled(table, (*table.at("matrix"), axis), values)
    for path in cast("dict[str, Any]", mounts if isinstance(mounts, dict) else {}):
        _check_unfilled(table, table.at("mounts"), {path: None})
    for path, code in _code(table, step):
        if not template.is_plain(code):
            _no_code(table, path, code)
    for path, attempt in _written(table, step):
        tell(table.faults.value, path, attempt)
    for path, attempt in _named(table, step):
        tell(table.faults.key, path, attempt)


def tell(fault: Callable[..., None], path: Path, attempt: Callable[[], object]) -> None:
    """Try it, and tell why it is refused; `fault`: where, at the key or the value."""
    try:
        attempt()
    except UsageError as error:
        fault(path, STRUCTURE, error.what, why=error.why, fix=error.fix)


def argument(document: Document, step: Path, number: int, index: int) -> Path:
    """Where an argument of the step's command of this number stands: `run` is one command, or a list of them."""
    row = (*step, "run", number)
    return (*row, index) if document.knows((*row, 0)) else (*step, "run", index)


def _check_unfilled(table: Table, path: Path, value: Any) -> None:
    fix = f"it is filled in only in {_FILLED}"
    if isinstance(value, str) and not template.is_plain(value):
        table.faults.value(path, STRUCTURE, "${{ }} cannot stand here", fix=fix)
    elif isinstance(value, list):
        for index, one in enumerate(cast("list[Any]", value)):
            _check_unfilled(table, (*path, index), one)
    elif isinstance(value, dict):
        for key, one in cast("dict[str, Any]", value).items():
            if not template.is_plain(key):
                table.faults.key((*path, key), STRUCTURE, "${{ }} cannot stand here", fix=fix)
            _check_unfilled(table, (*path, key), one)


def _code(table: Table, step: Step) -> Iterator[tuple[Path, str]]:
    """The texts that are run as code."""
    yield table.at("script"), step.script
    for number, command in enumerate(step.commands):
        for index in interpreters.code_of(command):
            yield argument(table.faults.document, table.path, number, index), command[index]
    last = step.commands[-1] if step.commands else ()
    if last and interpreters.reads_code(last):
        yield table.at("stdin"), step.stdin


def _no_code(table: Table, path: Path, code: str) -> None:
    table.faults.add(
        table.faults.document.inside(path, code, code.index("${{")),
        STRUCTURE,
        "a script holds no ${{ }}",
        why="what is filled in would be run as code",
        fix='hand it over: env.NAME = "${{ … }}", and "$NAME" in the script',
    )


def _written(table: Table, step: Step) -> Iterator[tuple[Path, Callable[[], object]]]:
    """What is to be tried of values."""
    if "image" in table:
        yield table.at("image"), partial(image, step.image)
    for number, command in enumerate(step.commands):
        if not command:
            continue  # told already
        words = [one if template.is_plain(one) else "x" for one in command]
        yield argument(table.faults.document, table.path, number, 0), partial(_SPEC.exec, *words)
    if "script" in table:
        yield table.at("script"), partial(_check_script, step.script)
    yield table.at("workdir"), partial(_check_path, "workdir", step.workdir)
    for one in step.mounts:
        place = (*table.at("mounts"), one.path)
        yield place, partial(_check_path, "the mounted path", one.local)
        if one.git and template.is_plain(one.git) and template.is_plain(one.ref):
            yield (*place, "git"), partial(git, one.git, one.ref or "HEAD")


def _named(table: Table, step: Step) -> Iterator[tuple[Path, Callable[[], object]]]:
    """What is to be tried of keys, with their values."""
    for name, text in step.env.items():
        yield (*table.at("env"), name), partial(_check_variable, name, text)
    for name, ref in step.secrets.items():
        yield (*table.at("secrets"), name), partial(_check_variable, name)
        yield (*table.at("secrets"), name), partial(_SPEC.secret, name, ref)
    for path, name in step.caches.items():
        yield (*table.at("caches"), path), partial(_SPEC.cache, path, name)
    for name, path in step.outputs.items():
        yield (*table.at("outputs"), name), partial(_SPEC.output, name, path)
    taken: set[str] = set()
    for path in [*step.caches, *(one.path for one in step.mounts)]:
        field = "caches" if path in step.caches else "mounts"
        yield (*table.at(field), path), partial(_check_place, path, taken)


def image(text: str) -> None:
    """Raises UsageError for what names no image; nothing, and what is filled in, may yet do so."""
    if text and template.is_plain(text):
        container(text)


def _check_script(text: str) -> None:
    if not text.strip():
        raise UsageError("the script is empty")
    _SPEC.exec(text)


def _check_variable(name: str, text: str = "") -> None:
    if not _VARIABLE.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a variable", fix="use A-Z, digits and _")
    _SPEC.env(**{name: text})


def _check_path(what: str, text: str) -> None:
    """Of the beginning, as far as it is written out."""
    if text and not text.startswith(("/", "${{")):
        raise UsageError(f"{what} is no absolute path", fix="begin it with /")
    if ".." in text.split("/"):
        raise UsageError(f"{what} leads upwards", fix="write it without ..")
    _SPEC.workdir(text)


def _check_place(path: str, taken: set[str]) -> None:
    _SPEC.mount(path, "/x")
    place = posixpath.normpath(path)
    if place in taken:
        raise UsageError(f"two things are mounted at {place}", fix="leave one of them out")
    taken.add(place)
