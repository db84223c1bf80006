"""Measures the source files of a tree with lizard; runs in a process of the service `code-metrics`.

lizard has no type stubs: it is imported by name, and protocols say what is used of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from importlib import import_module
from importlib.metadata import version
from typing import Protocol, cast

from switchgear_agents.repository import ComplexFunction, MetricsReport
from switchgear_agents.tree import opened, readable, tracked

WORST = 10
COMPLEX = 15
"""Cyclomatic complexity above which a function is counted as complex: lizard's own default."""


class _Function(Protocol):
    name: str
    start_line: int
    cyclomatic_complexity: int
    nloc: int


class _Reader(Protocol):
    language_names: list[str]


_ReaderFor = Callable[[str], _Reader | None]


class _File(Protocol):
    nloc: int
    function_list: list[_Function]


def measure(path: str) -> MetricsReport:
    """Measure the tree; raises `Refused` for something that is no tree."""
    with opened(path) as tree:
        return _measure(tree)


def _measure(path: str) -> MetricsReport:
    names, _ = readable(path, tracked(path))
    languages: Counter[str] = Counter()
    functions: list[ComplexFunction] = []
    nloc = unread = 0
    with chdir(path):
        for name in names:
            if (language := _language(name)) is None:
                continue
            if (file := _analyse(name)) is None:
                unread += 1
                continue
            languages[language] += 1
            nloc += file.nloc
            functions += [_complexity(name, function) for function in file.function_list]
    complexities = [function.complexity for function in functions]
    return MetricsReport(
        tool=f"lizard {version('lizard')}",
        files=languages.total(),
        functions=len(functions),
        nloc=nloc,
        mean_complexity=round(sum(complexities) / len(complexities), 2) if complexities else 0.0,
        max_complexity=max(complexities, default=0),
        above=sum(complexity > COMPLEX for complexity in complexities),
        languages=dict(languages.most_common()),
        worst=sorted(functions, key=lambda f: (-f.complexity, f.path, f.line))[:WORST],
        unread=unread,
    )


def _complexity(path: str, function: _Function) -> ComplexFunction:
    return ComplexFunction(
        path=path,
        line=function.start_line,
        name=function.name[:200],
        complexity=function.cyclomatic_complexity,
        nloc=function.nloc,
    )


def _language(name: str) -> str | None:
    """The language that lizard reads such a file as; None for others and for minified files."""
    reader_for = cast("_ReaderFor", import_module("lizard_languages").get_reader_for)
    reader = None if name.endswith(".min.js") else reader_for(name)
    return None if reader is None else reader.language_names[0]


def _analyse(name: str) -> _File | None:
    """One file's measures, or None for a file that lizard stumbles over."""
    analyse = cast("Callable[[str], _File]", import_module("lizard").analyze_file)
    try:
        return analyse(name)
    except Exception:  # noqa: BLE001 - it parses by hand: any error, and the other files still count
        return None
