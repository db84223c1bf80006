"""From a document to a pipeline: keys, types and texts; how steps hang together is `checking`'s. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from typing import Any, cast, get_args

from switchgear.contract import limits
from switchgear.contract.values import RETRIED, ErrorClass, Retry
from switchgear.pipelines import evaluating, literals, parameters
from switchgear.pipelines.document import Document, Faults, Path
from switchgear.pipelines.model import MAX_STEPS, ONCE, Mount, Pipeline, Step
from switchgear.pipelines.table import STRUCTURE, Table, hint

LIMIT = "SG1534"
MAX_SCRIPT = 100_000
"""Characters: it becomes one argument, and systems bound those."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOP = (
    "name", "description", "timeout", "attempts", "concurrency", "fail_fast", "image", "env", "parameters", "steps",
    "outputs",
)  # fmt: skip
_STEP = (
    "description", "needs", "if", "image", "run", "script", "interpreter", "workdir", "env", "secrets", "mounts",
    "caches", "outputs", "stdin", "timeout", "memory", "cpu", "network", "expect", "idempotent", "cacheable", "retry",
    "allow_failure", "matrix", "exclude",
)  # fmt: skip
_MOUNT = ("path", "git", "ref", "artifact", "writable", "optional")
_RETRY = ("attempts", "initial", "factor", "max_delay", "on")
_CLASSES = get_args(ErrorClass)


def read(document: Document, faults: Faults, name: str) -> Pipeline:
    """The pipeline, as far as it can be read; `name` where the file gives none."""
    value = document.value
    if not isinstance(value, dict):
        faults.value((), STRUCTURE, "a pipeline is a table", fix="begin with `steps:`")
        return Pipeline(name=name)
    top = Table(faults, (), cast("dict[str, Any]", value))
    top.allow("a pipeline", _TOP)
    called = top.text("name", name)
    if not _NAME.fullmatch(called):
        fix = "use 1 to 64 letters, digits, - and _"
        faults.value(("name",), STRUCTURE, f"{called!r} cannot name a pipeline", fix=fix)
    image, env = top.text("image"), top.mapping("env")
    literals.tell(faults.value, top.at("image"), partial(literals.image, image))
    if not top.raw("steps"):
        faults.value(
            (), STRUCTURE, "a pipeline has steps", fix="add a table `steps`, with a name for each"
        )
    steps = [_step(table, image, env) for table in _named(top, "steps")]
    if len(steps) > MAX_STEPS:
        faults.key(("steps",), LIMIT, f"{len(steps)} steps are more than {MAX_STEPS}")
    found = tuple(parameters.read(table) for table in _named(top, "parameters"))
    return Pipeline(
        name=called,
        description=top.text("description"),
        timeout=top.duration("timeout", timedelta(hours=1)),
        attempts=top.whole("attempts", 1, 1, limits.MAX_ATTEMPTS),
        concurrency=top.whole("concurrency", 4, 1, 64),
        fail_fast=top.flag("fail_fast"),
        parameters=found,
        steps=tuple(steps),
        outputs=top.mapping("outputs"),
    )


def _named(top: Table, name: str) -> list[Table]:
    """The tables of a table by name: a list of them is refused, since they would have no names."""
    if isinstance(top.raw(name), list):
        fix = f"write [{name}.NAME], in YAML `{name}:` with a name for each"
        top.faults.value(top.at(name), STRUCTURE, f"{name} is a table, not a list", fix=fix)
        return []
    return top.tables(name)


def _step(table: Table, image: str, env: dict[str, str]) -> Step:
    name = str(table.path[-1])
    if not _NAME.fullmatch(name):
        fix = "use 1 to 64 letters, digits, - and _"
        table.faults.key(table.path, STRUCTURE, f"{name!r} cannot name a step", fix=fix)
    table.allow("a step", _STEP)
    _check_work(table, name)
    step = Step(
        name=name,
        description=table.text("description"),
        needs=table.texts("needs"),
        condition=_condition(table),
        image=table.text("image", image),
        commands=_commands(table),
        script=table.text("script"),
        interpreter=table.texts("interpreter") or ("sh", "-euc"),
        workdir=table.text("workdir"),
        env={**env, **table.mapping("env")},
        secrets=table.mapping("secrets"),
        mounts=_mounts(table),
        caches=table.mapping("caches"),
        outputs=table.mapping("outputs"),
        stdin=table.text("stdin"),
        timeout=table.duration("timeout"),
        memory=table.size("memory"),
        cpu=table.duration("cpu"),
        network=table.flag("network"),
        expect=_expected(table),
        idempotent=table.flag("idempotent"),
        cacheable=table.flag("cacheable"),
        retry=_retry(table),
        allow_failure=table.flag("allow_failure"),
        matrix=_matrix(table),
        exclude=_exclude(table),
    )
    literals.check(table, step)
    if len(step.script) > MAX_SCRIPT:
        what = f"the script is longer than {MAX_SCRIPT} characters"
        table.faults.value(table.at("script"), LIMIT, what, fix="mount it as a file")
    return step


def _condition(table: Table) -> str:
    """`if`: true and false stand for themselves, and `${{ }}` around an expression is not needed."""
    value = table.raw("if")
    if isinstance(value, bool):
        return "true" if value else "false"
    return table.text("if")


def _check_work(table: Table, name: str) -> None:
    faults = table.faults
    if "run" in table and "script" in table:
        faults.key(table.at("script"), STRUCTURE, f"{name} has both a run and a script")
    if "run" not in table and "script" not in table:
        fix = 'add run = ["program", "argument"], or script = "…"'
        faults.key(table.path, STRUCTURE, f"the step {name} does nothing", fix=fix)
    if "interpreter" in table and "script" not in table:
        faults.key(table.at("interpreter"), STRUCTURE, "an interpreter is for a script")


def _commands(table: Table) -> tuple[tuple[str, ...], ...]:
    """`run`: one command as a list of texts, or several as a list of such lists."""
    value = table.raw("run")
    if value is None:
        return ()
    fix = 'write it as a list: ["program", "argument"]; a shell is used by `script`'
    if not isinstance(value, list) or not value:
        table.wrong(table.at("run"), "a list of texts", value, fix)
        return ()
    rows = cast("list[Any]", value)
    if not any(isinstance(one, list) for one in rows):
        return (table.texts("run"),)
    inner = Table(table.faults, table.at("run"), {})
    found: list[tuple[str, ...]] = []
    for index, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            table.wrong(inner.at(index), "a list of texts, as all of them", row)
            row = []  # noqa: PLW2901 - the others keep their numbers
        one = Table(table.faults, table.at("run"), cast("dict[str, Any]", {index: row}))
        found.append(one.texts(cast("str", index)))
    return tuple(found)


def _mounts(table: Table) -> tuple[Mount, ...]:
    mounts = table.table("mounts")
    return () if mounts is None else tuple(_mount(mounts, path) for path in mounts.names())


def _mount(mounts: Table, path: str) -> Mount:
    if isinstance(mounts.raw(path), str):
        return Mount(path=path, local=mounts.text(path))
    table = mounts.table(path)
    if table is None:
        return Mount(path=path)
    table.allow("a mount", _MOUNT)
    given = [name for name in ("path", "git", "artifact") if name in table]
    if len(given) != 1:
        fix = 'give one of path = "…", git = "URL" with ref = "…", artifact = "step.output"'
        table.faults.key(table.path, STRUCTURE, f"{path} has {len(given) or 'no'} sources", fix=fix)
    if "git" in table and "ref" not in table:
        fix = 'add ref = "a branch, tag or commit"'
        table.faults.key(table.at("git"), STRUCTURE, "a git mount has a ref", fix=fix)
    for name, source in (("ref", "git"), ("optional", "artifact")):
        if name in table and source not in table:
            table.faults.key(table.at(name), STRUCTURE, f"{name} is for a mount of {source}")
    return Mount(
        path=path,
        local=table.text("path"),
        git=table.text("git"),
        ref=table.text("ref"),
        artifact=_artifact(table),
        writable=table.flag("writable"),
        optional=table.flag("optional"),
    )


def _artifact(table: Table) -> tuple[str, str] | None:
    text = table.text("artifact")
    step, dot, output = text.partition(".")
    if not text:
        return None
    if not dot or not step or not output:
        what, fix = f"{text!r} names no artifact", 'write it as "step.output"'
        table.faults.value(table.at("artifact"), STRUCTURE, what, fix=fix)
        return None
    return step, output


def _expected(table: Table) -> tuple[int, ...]:
    value = table.raw("expect")
    codes = cast("list[Any]", value if isinstance(value, list) else [0 if value is None else value])
    if codes and all(type(one) is int and 0 <= one <= 255 for one in codes):  # noqa: PLR2004 - a byte
        return tuple(codes)
    table.wrong(table.at("expect"), "a list of exit codes from 0 to 255", value)
    return (0,)


def _retry(table: Table) -> Retry:
    if isinstance(table.raw("retry"), int):
        return Retry(max_attempts=table.whole("retry", 1, 1, limits.MAX_ATTEMPTS), on=_ON)
    inner = table.table("retry")
    if inner is None:
        return ONCE
    inner.allow("a retry", _RETRY)
    classes: set[ErrorClass] = set()
    for text, path in inner.elements("on"):
        if text in _CLASSES:
            classes.add(cast("ErrorClass", text))
        else:
            what = f"{text!r} is no class of errors"
            inner.faults.value(path, STRUCTURE, what, fix=hint(text, _CLASSES))
    plain = Retry()
    initial = inner.duration("initial", plain.initial) or plain.initial
    longest = inner.duration("max_delay", max(initial, plain.max_delay)) or plain.max_delay
    if longest < initial:
        what, fix = "the first pause is longer than max_delay", "raise max_delay"
        inner.faults.value(inner.at("initial"), STRUCTURE, what, fix=fix)
    factor = inner.number("factor")
    if factor is not None and not 1 <= factor <= limits.MAX_FACTOR:
        what = f"factor is from 1 to {limits.MAX_FACTOR}"
        inner.faults.value(inner.at("factor"), STRUCTURE, what)
        factor = None
    return Retry(
        max_attempts=inner.whole("attempts", 3, 1, limits.MAX_ATTEMPTS),
        initial=initial,
        factor=plain.factor if factor is None else factor,
        max_delay=longest,
        on=frozenset(classes) if "on" in inner else _ON,
    )


_ON: frozenset[ErrorClass] = frozenset({*RETRIED, "step"})
"""What a step's retry is for where it does not say: an exit code that may be another next time, too."""


def _matrix(table: Table) -> dict[str, tuple[Any, ...] | str]:
    matrix = table.table("matrix")
    found: dict[str, tuple[Any, ...] | str] = {}
    for axis in matrix.names() if matrix else ():
        assert matrix is not None
        if not _NAME.fullmatch(axis):
            matrix.faults.key(matrix.at(axis), STRUCTURE, f"{axis!r} cannot name an axis")
        value = matrix.raw(axis)
        if isinstance(value, str):
            found[axis] = value
        elif isinstance(value, list) and value:
            found[axis] = _values(matrix, matrix.at(axis), cast("list[Any]", value))
        else:
            fix = 'such as ["3.11", "3.12"], or "${{ params.versions }}"'
            matrix.wrong(matrix.at(axis), "a list of values", value, fix)
    return found


def _values(matrix: Table, path: Path, values: list[Any]) -> tuple[Any, ...]:
    kept: list[Any] = []
    for index, one in enumerate(values):
        if isinstance(one, float):
            what = f"{one} is a number, and would lose its trailing zeros"
            fix = f'write it as a text: "{matrix.faults.document.raw((*path, index))}"'
            matrix.faults.value((*path, index), STRUCTURE, what, fix=fix)
        elif not isinstance(one, str | int):
            matrix.wrong((*path, index), "a text or a whole number", one)
        elif evaluating.text(one) in {evaluating.text(other) for other in kept}:
            matrix.faults.value((*path, index), STRUCTURE, f"{one!r} stands twice in the matrix")
        else:
            kept.append(one)
    return tuple(kept)


def _exclude(table: Table) -> tuple[dict[str, Any], ...]:
    if "exclude" not in table:
        return ()
    if not isinstance(table.raw("exclude"), list):
        table.wrong(table.at("exclude"), "a list of tables", table.raw("exclude"))
        return ()
    axes = table.table("matrix")
    known = axes.names() if axes else []
    for one in table.tables("exclude"):
        one.allow("the matrix", known)
    found = cast("list[Any]", table.raw("exclude"))
    return tuple(cast("dict[str, Any]", one) for one in found if isinstance(one, dict))
