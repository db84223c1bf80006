"""Reads a TOML file: tomllib gives the values, a scan of the same text their places. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import NoReturn

from switchgear.pipelines.document import Document, Path, Place, Span, line_starts, place
from switchgear.pipelines.faults import PipelineFault, PipelineInvalid

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = re.compile(r"Cannot (?:declare|overwrite) (?:\((.*)\) twice|a value)")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})|"(?:\\.|[^"\\])*"|\'[^\']*\'',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_NUMBER = re.compile(r"[0-9_]{1000,}")
_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_LINE = re.compile(r"[^\n]*")


def read(file: str, text: str) -> Document:
    """The document. Raises PipelineInvalid with SG1530 for what is no TOML, SG1531 for a key that stands twice."""
    scan = _Scan(text)
    try:
        value = tomllib.loads(text)
        scan.run()
    except tomllib.TOMLDecodeError as error:
        _refuse(file, text, str(error))
    except RecursionError:
        raise PipelineInvalid(
            [PipelineFault(file, 1, 1, "SG1530", "the file is nested too deeply")]
        ) from None
    except ValueError as error:  # a number of thousands of digits, or a date that there is not
        number = _NUMBER.search(text)
        where = place(line_starts(text), number.start() if number else 0)
        raise PipelineInvalid(
            [PipelineFault(file, *where, "SG1530", "a value cannot be read", str(error))]
        ) from None
    return Document(file, text, value, scan.keys, scan.spans)


def _refuse(file: str, text: str, message: str) -> NoReturn:
    at = _AT.search(message)
    where = place(line_starts(text), len(text.rstrip()))
    if at and at[1]:
        where = Place(int(at[1]), int(at[2]))
    said = _AT.sub("", message)
    twice = _TWICE.match(said)
    if not twice:
        raise PipelineInvalid([PipelineFault(file, *where, "SG1530", "this is no TOML", said)])
    names = [name.strip(" '\"") for name in (twice[1] or "").split(",") if name.strip(" '\"")]
    what = "a key stands twice in one table"
    if names:
        kind = "step" if names[:-1] == ["steps"] else "table"
        what = f"the {kind} {names[-1] if kind == 'step' else '.'.join(names)} is declared twice"
        where = Place(where.line, 1)
    raise PipelineInvalid(
        [PipelineFault(file, *where, "SG1531", what, said, "rename one of them, or join the two")]
    )


class _Scan:
    """Walks a text that is known to be TOML, and notes where keys and values stand."""

    def __init__(self, text: str) -> None:
        self.keys: dict[Path, int] = {}
        self.spans: dict[Path, Span] = {}
        self._text = text
        self._at = 0
        self._counts: dict[Path, int] = {}

    def run(self) -> None:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
                self._skip(_LINE)
            else:
                self._pair(table)
                self._skip(_LINE)
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`: the path of the table."""
        start = self._at
        many = self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        path: Path = ()
        parts = self._names()
        for index, (name, offset) in enumerate(parts):
            path = (*path, name)
            self.keys.setdefault(path, offset)
            last = index == len(parts) - 1
            if last and many:
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        if parts and not many:
            self.keys[path] = parts[-1][1]
        self.spans.setdefault(path, Span(start, self._at))
        return path

    def _names(self) -> list[tuple[str, int]]:
        """A dotted key, each part with its offset."""
        found: list[tuple[str, int]] = []
        while True:
            self._skip(_BLANK)
            start = self._at
            name = self._skip(_BARE)
            if not name:
                raw = self._skip(_STRING)
                name = str(tomllib.loads(f"k={raw}")["k"]) if raw else ""
            found.append((name, start))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return found
            self._at += 1

    def _pair(self, table: Path) -> None:
        """`a.b = value`."""
        path = table
        for name, offset in self._names():
            path = (*path, name)
            self.keys.setdefault(path, offset)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        start = self._at
        opening = self._text[start : start + 1]
        if opening in {'"', "'"}:
            self._skip(_STRING)
        elif opening == "[":
            self._list(path)
        elif opening == "{":
            self._inline(path)
        else:
            self._at = start + len(self._skip(_SCALAR).rstrip())
        self.spans[path] = Span(start, self._at)

    def _list(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._more("]"):
            self._value((*path, index))
            index += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while self._more("}"):
            self._pair(path)

    def _more(self, closing: str) -> bool:
        """Whether another element stands before the closing bracket, which is passed."""
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_BLANK)
        if self._at >= len(self._text):
            return False
        if self._text[self._at] == closing:
            self._at += 1
            return False
        return True
