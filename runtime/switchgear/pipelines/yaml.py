"""Reads a YAML file by PyYAML's parser, with the scalars of YAML 1.2: `no` and `on` are texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from switchgear.errors import ExtraMissing
from switchgear.pipelines.document import Document, Path, Span
from switchgear.pipelines.faults import PipelineFault, PipelineInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from yaml.nodes import MappingNode, Node

MAX_NODES = 20_000
"""Values of a file, aliases counted each time: a few lines of aliases could stand for billions."""
MAX_DEPTH = 32

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,1000}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))


def read(file: str, text: str) -> Document:
    """The document. Raises PipelineInvalid with SG1530 for what is no YAML, ExtraMissing without PyYAML."""
    try:
        import yaml
    except ImportError:
        raise ExtraMissing("a pipeline in YAML", "pipelines") from None

    class Loader(yaml.SafeLoader):
        """Leaves plain scalars as they are written."""

        yaml_implicit_resolvers = {}  # noqa: RUF012 - as the base class declares it

    try:
        compose = cast("Callable[..., Node | None]", yaml.compose)  # pyright: ignore[reportUnknownMemberType] - untyped
        root = compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = ", ".join(part for part in (error.context, error.problem) if part)
        raise PipelineInvalid(
            [PipelineFault(file, line, column, "SG1530", "this is no YAML", why)]
        ) from error
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise PipelineInvalid(
            [PipelineFault(file, 1, 1, "SG1530", "this is no YAML", why)]
        ) from error
    except RecursionError:
        raise PipelineInvalid(
            [PipelineFault(file, 1, 1, "SG1530", "the file is nested too deeply")]
        ) from None
    walk = _Walk(file)
    value: Any = {} if root is None else walk.value((), root)
    return Document(file, text, value, walk.keys, walk.spans, faults=walk.faults)


class _Walk:
    """Builds values from the parser's nodes, and notes where they stand."""

    def __init__(self, file: str) -> None:
        self.keys: dict[Path, int] = {}
        self.spans: dict[Path, Span] = {}
        self.faults: list[PipelineFault] = []
        self._file = file
        self._lines: dict[Path, int] = {}
        self._nodes = 0

    def value(self, path: Path, node: Node) -> Any:
        from yaml.nodes import MappingNode, ScalarNode, SequenceNode

        self._nodes += 1
        self.spans[path] = Span(node.start_mark.index, node.end_mark.index)
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            if not any(fault.code == "SG1534" for fault in self.faults):
                what = f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}"
                self._fault(node, "SG1534", what, fix="aliases count each time they are used")
            return None
        if node.tag not in _TAGS:
            fix = "leave it out: texts, numbers, true, false, lists and tables are known"
            self._fault(node, "SG1531", f"the tag {node.tag} means nothing here", fix=fix)
            return None
        if isinstance(node, MappingNode):
            return self._table(path, node)
        if isinstance(node, SequenceNode):
            return [self.value((*path, index), one) for index, one in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return scalar(node.value) if node.style is None else node.value

    def _table(self, path: Path, node: MappingNode) -> dict[str, Any]:
        from yaml.nodes import ScalarNode

        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._fault(key, "SG1531", "a key is no text")
                continue
            name = str(key.value)
            if name in found:
                kind = "step" if path == ("steps",) else "key"
                first = self._lines[(*path, name)]
                what = f"the {kind} {name} is declared twice"
                why, fix = f"line {first} declares it too", "rename one of them, or join the two"
                self._fault(key, "SG1531", what, why=why, fix=fix)
                continue
            self._lines[(*path, name)] = key.start_mark.line + 1
            self.keys[(*path, name)] = key.start_mark.index
            found[name] = self.value((*path, name), value)
        return found

    def _fault(self, node: Node, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        mark = node.start_mark
        self.faults.append(
            PipelineFault(self._file, mark.line + 1, mark.column + 1, code, what, why, fix)
        )


def scalar(text: str) -> Any:
    """What a plain scalar means by the core schema of YAML 1.2; all else is a text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
