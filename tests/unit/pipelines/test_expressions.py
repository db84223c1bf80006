"""What expressions give, and what they refuse; nothing but data is ever reached."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.pipelines import expression, template
from switchgear.pipelines.evaluating import CannotEvaluate, evaluate
from switchgear.pipelines.expression import SyntaxFault

SCOPE: dict[str, Any] = {
    "params": {"name": "Ada", "n": 3, "none": None, "list": ["a", "b"], "on": True, "empty": ""},
    "steps": {"unit-test": {"outcome": "success", "stdout": '{"n": [1, {"a": "x"}]}'}},
    "always": lambda: True,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("params.name == 'Ada'", True),
        ('params.name != "Ada"', False),
        ("params.n > 2 and params.n <= 3", True),
        ("not params.on or params.n == 3.0", True),
        ("params.n == '3'", False),
        ("params.on == 1", False),
        ("params.empty or params.none or 'x'", "x"),
        ("'a' in params.list", True),
        ("'c' not in params.list", True),
        ("params.name in ['Ada', 'Grace']", True),
        ("'da' in params.name", True),
        ("steps.unit-test.outcome == 'success'", True),
        ("fromjson(steps.unit-test.stdout).n[1].a", "x"),
        ("fromjson(steps.unit-test.stdout)['n'][0]", 1),
        ("params.list[-1]", "b"),
        ("len(params.list)", 2),
        ("startswith(params.name, 'A') and endswith(params.name, 'a')", True),
        ("(1 == 2) == false", True),
        ("null == params.none", True),
        ("'it\\'s'", "it's"),
        ("-1 < 0", True),
        ("always()", True),
        ("false and params.none.x", False),
    ],
)
def test_expressions_give(text: str, value: Any) -> None:
    found = evaluate(expression.parse(text), SCOPE)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("", 0),
        ("params.", 7),
        ("params.n = 3", 9),
        ("a && b", 2),
        ("(a", 2),
        ("a b", 2),
        ("1 < 2 < 3", 6),
        ("'open", 0),
        ("a[", 2),
        ("f(1 2)", 4),
        ("not", 3),
        ("a not b", 2),
        ("a + b", 2),
        ("(" * 100 + "1" + ")" * 100, 40),
        ("not " * 100 + "true", 156),
        ("x" * 3000, 0),
        ("a" + ".a" * 400, 250),
    ],
)
def test_what_cannot_be_read_is_told_at_its_character(text: str, offset: int) -> None:
    with pytest.raises(SyntaxFault) as caught:
        expression.parse(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "text",
    [
        "params.__class__",
        "params.name.__class__",
        "params.name.upper",
        "params.list.append",
        "params.list['0']",
        "params.list[9]",
        "params.list[true]",
        "params.none.x",
        "nobody.x",
        "params.n < 'a'",
        "params.on < true",
        "1 in 2",
        "1 in 'a'",
        "[1] in fromjson('{}')",
        "len(3)",
        "startswith(1, 'a')",
        "fromjson('{')",
        "fromjson(3)",
        "open('x')",
        "params()",
    ],
)
def test_what_has_no_value_is_refused(text: str) -> None:
    with pytest.raises(CannotEvaluate):
        evaluate(expression.parse(text), SCOPE)


@given(st.text(alphabet="parms.n'\"()[]{}<>=!,andotr 0\\-", max_size=40))
def test_any_text_gives_a_tree_a_value_or_one_of_two_errors(text: str) -> None:
    offset = 0
    try:
        evaluate(expression.parse(text), SCOPE)
        template.fill(text, SCOPE)
    except SyntaxFault as fault:
        offset = fault.offset
    except CannotEvaluate:
        pass
    assert 0 <= offset <= len(text)


def test_texts_are_filled_in() -> None:
    assert template.fill("a ${{ params.n }}${{ '}}' }} ${{params.none}}.", SCOPE) == "a 3}} ."
    assert template.fill("$NAME ${NAME} {{ x }}", SCOPE) == "$NAME ${NAME} {{ x }}"
    assert template.value("${{ params.list }}", SCOPE) == ["a", "b"]
    assert template.value("x${{ params.on }}", SCOPE) == "xtrue"


@pytest.mark.parametrize("part", ["${{", "${{ '", "${{ a }", "${{ 'a' }}${{"])
def test_a_long_text_is_read_once(part: str) -> None:
    """Whoever reads it again from each of its signs is not ready today."""
    with pytest.raises(SyntaxFault):
        template.holes(part * 100_000)


def test_what_is_filled_in_is_not_read_again() -> None:
    scope = {"params": {"evil": "${{ params.secret }}", "secret": "x"}}
    assert template.fill("${{ params.evil }}", scope) == "${{ params.secret }}"
