"""The language of `if` and `${{ }}`: names, comparisons, a few functions; parsed to a tree. Pure, without eval.

or < and < not < == != < <= > >= in < .name [index] < literal, name, function(…), (…), […]
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

MAX_LENGTH = 2000
"""Characters of one expression."""
MAX_TOKENS = 250
"""Words and signs of one expression: a tree of them is never too deep to walk."""
MAX_DEPTH = 40
"""Brackets and `not`s within each other."""

FUNCTIONS: dict[str, int] = {
    "always": 0,
    "endswith": 2,
    "failed": 0,
    "fromjson": 1,
    "len": 1,
    "startswith": 2,
    "success": 0,
}
"""Every function, and how many arguments it takes."""
STATUS = frozenset({"always", "failed", "success"})
"""Functions that ask how the needed steps ended; only `if` knows them."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d+)?)
    |(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
    |(?P<name>[A-Za-z_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)
    |(?P<sign>==|!=|<=|>=|[<>()\[\],.]))""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t"}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_OPERATORS = frozenset({"and", "or", "not", "in"})
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})


class SyntaxFault(Exception):
    """A text that is no expression: what is wrong, and at which character."""

    def __init__(self, what: str, offset: int, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.offset = offset
        self.fix = fix


class Literal(NamedTuple):
    """A value as it is written."""

    value: Any
    offset: int


class Name(NamedTuple):
    """A name at the top, such as `params`."""

    name: str
    offset: int


class Member(NamedTuple):
    """`base.name` or `base[index]`."""

    base: Node
    key: Node
    offset: int


class Several(NamedTuple):
    """`[a, b]`."""

    items: tuple[Node, ...]
    offset: int


class Call(NamedTuple):
    """`function(arguments)`."""

    function: str
    arguments: tuple[Node, ...]
    offset: int


class Operation(NamedTuple):
    """An operator with one operand (`not`) or two."""

    operator: str
    operands: tuple[Node, ...]
    offset: int


Node = Literal | Name | Member | Several | Call | Operation


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int


def parse(text: str) -> Node:
    """The tree of an expression. Raises SyntaxFault."""
    if len(text) > MAX_LENGTH:
        raise SyntaxFault(f"the expression is longer than {MAX_LENGTH} characters", 0)
    return _Parser(text).whole()


def below(node: Node) -> tuple[Node, ...]:
    """The nodes that this one is made of."""
    if isinstance(node, Member):
        return (node.base, node.key)
    if isinstance(node, Several):
        return node.items
    if isinstance(node, Call):
        return node.arguments
    return node.operands if isinstance(node, Operation) else ()


def asks_status(node: Node) -> bool:
    """Whether it asks how the needed steps ended: then it, and nothing else, decides about failures."""
    if isinstance(node, Call) and node.function in STATUS:
        return True
    return any(asks_status(one) for one in below(node))


def chain(node: Node) -> tuple[list[str], list[int]] | None:
    """The names and offsets of `a.b.c`, as far as they are written out; None for what begins otherwise."""
    if isinstance(node, Name):
        return [node.name], [node.offset]
    if not isinstance(node, Member):
        return None
    found = chain(node.base)
    if found is None or not isinstance(node.key, Literal) or not isinstance(node.key.value, str):
        return found
    names, offsets = found
    return [*names, node.key.value], [*offsets, node.key.offset]


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._at = 0
        self._depth = 0

    @staticmethod
    def _split(text: str) -> list[_Token]:
        found: list[_Token] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise SyntaxFault(f"{text[at]!r} cannot stand here", at, _hint(text[at:]))
            kind = match.lastgroup
            found.append(_Token(kind, match[kind], match.start(kind)))
            if len(found) > MAX_TOKENS:
                raise SyntaxFault(f"the expression has more than {MAX_TOKENS} words", at)
            at = match.end()
        found.append(_Token("end", "", len(text)))
        return found

    def whole(self) -> Node:
        if self._tokens[0].kind == "end":
            raise SyntaxFault("the expression is empty", 0)
        node = self._or()
        token = self._tokens[self._at]
        if token.kind != "end":
            fix = "join two conditions by `and` or `or`"
            raise SyntaxFault(f"{token.text!r} cannot stand here", token.offset, fix)
        return node

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _is(self, *texts: str) -> bool:
        token = self._tokens[self._at]
        return token.kind in {"name", "sign"} and token.text in texts

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.text != text or token.kind != "sign":
            found = f", not {token.text!r}" if token.kind != "end" else ""
            raise SyntaxFault(f"{text!r} is expected here{found}", token.offset)

    def _or(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SyntaxFault("the expression is nested too deeply", self._tokens[self._at].offset)
        node = self._joined("or", lambda: self._joined("and", self._not))
        self._depth -= 1
        return node

    def _joined(self, word: str, part: Any) -> Node:
        node: Node = part()
        while self._is(word):
            offset = self._next().offset
            node = Operation(word, (node, part()), offset)
        return node

    def _not(self) -> Node:
        if not self._is("not"):
            return self._comparison()
        offset = self._next().offset
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SyntaxFault("the expression is nested too deeply", offset)
        node = Operation("not", (self._not(),), offset)
        self._depth -= 1
        return node

    def _comparison(self) -> Node:
        node = self._member()
        negated = self._is("not")
        token = self._tokens[self._at + 1] if negated else self._tokens[self._at]
        if negated and token.text != "in":
            raise SyntaxFault("'not' cannot stand here", self._tokens[self._at].offset)
        if token.text not in _COMPARISONS or token.kind not in {"name", "sign"}:
            return node
        self._at += 2 if negated else 1
        node = Operation(token.text, (node, self._member()), token.offset)
        if self._is(*_COMPARISONS):
            fix = "compare twice, joined by `and`"
            raise SyntaxFault("comparisons do not chain", self._tokens[self._at].offset, fix)
        return Operation("not", (node,), token.offset) if negated else node

    def _member(self) -> Node:
        node = self._primary()
        while self._is(".", "["):
            if self._next().text == ".":
                token = self._next()
                if token.kind != "name":
                    raise SyntaxFault("a name is expected after the dot", token.offset)
                node = Member(node, Literal(token.text, token.offset), token.offset)
            else:
                offset = self._tokens[self._at].offset
                node = Member(node, self._or(), offset)
                self._expect("]")
        return node

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "number":
            return Literal(
                float(token.text) if "." in token.text else int(token.text), token.offset
            )
        if token.kind == "text":
            return Literal(_ESCAPE.sub(_unescaped, token.text[1:-1]), token.offset)
        if token.kind == "name" and token.text not in _OPERATORS:
            return self._named(token)
        if token.text == "(":
            node = self._or()
            self._expect(")")
            return node
        if token.text == "[":
            return Several(self._list("]"), token.offset)
        what = (
            f"{token.text!r} cannot stand here" if token.text else "something is missing at the end"
        )
        raise SyntaxFault(what, token.offset, _hint(token.text))

    def _named(self, token: _Token) -> Node:
        if token.text in _WORDS:
            return Literal(_WORDS[token.text], token.offset)
        if not self._is("("):
            return Name(token.text, token.offset)
        self._next()
        return Call(token.text, self._list(")"), token.offset)

    def _list(self, closing: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self._is(closing):
            found.append(self._or())
            if not self._is(closing):
                self._expect(",")
        self._next()
        return tuple(found)


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[1])


_HINTS = {
    "=": "compare by `==`",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`",
    "'": "close the quotes",
    '"': "close the quotes",
    "}": "close it by `}}`",
    "+": "put texts side by side: ${{ a }}${{ b }}",
}


def _hint(text: str) -> str:
    return _HINTS.get(text[:1], "")
