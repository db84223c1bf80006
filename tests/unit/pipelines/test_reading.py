"""Files become pipelines: both formats say the same, places are those of the text, parameters become a type."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.agent.declare import Agent
from switchgear.agent.pipelines import load_pipelines
from switchgear.agent.schemas import offer
from switchgear.errors import NotFound
from switchgear.pipelines import files, parameters, toml, yaml
from switchgear.pipelines.document import Document
from switchgear.pipelines.faults import PipelineInvalid
from switchgear.pipelines.model import Pipeline

TOML = """\
# a comment
name = "build"
timeout = "1h30m"
[parameters]
ref = { type = "string", default = "main", pattern = "^[a-z]+$", description = "Branch" }
"jobs" = { type = 'integer', minimum = 1, maximum = 8, required = false }
level = { type = "string", choices = ["low", "high"] }
[steps."build"]
run = [["./configure"], ["make", "-j${{ params.jobs }}"]]
memory = "1GiB"
[steps.test]
needs = "build"
matrix.python = ["3.11", "3.12"]
script = '''
make test
'''
retry = { attempts = 2, initial = "5s", on = ["step"] }
"""
YAML = """\
# a comment
name: build
timeout: 1h30m
parameters:
  ref: {type: string, default: main, pattern: "^[a-z]+$", description: Branch}
  jobs: {type: integer, minimum: 1, maximum: 8, required: false}
  level:
    type: string
    choices: [low, high]
steps:
  build:
    run: [[./configure], [make, "-j${{ params.jobs }}"]]
    memory: 1GiB
  test:
    needs: build
    matrix: {python: ["3.11", "3.12"]}
    script: |
      make test
    retry: {attempts: 2, initial: 5s, on: [step]}
"""


def test_both_formats_say_the_same() -> None:
    pipeline = files.parse("x.toml", TOML)
    assert (
        pipeline == files.parse("x.yaml", YAML) == files.parse("x.yml", YAML.replace("\n", "\r\n"))
    )
    assert pipeline.timeout == timedelta(minutes=90)
    assert pipeline.step("build").memory == 2**30
    assert pipeline.step("test").script == "make test\n"
    assert pipeline.step("test").retry.max_attempts == 2


def test_a_file_names_its_pipeline_unless_it_does_so_itself() -> None:
    assert files.parse("some/ci.toml", "[steps.a]\nrun = ['x']").name == "ci"


def test_norway_is_a_country() -> None:
    text = "steps: {a: {run: [no, off, ~x, 1_000, 0x10, 12:30:45, 2026-11-29]}}"
    [command] = files.parse("x.yaml", text).step("a").commands
    assert command == ("no", "off", "~x", "1_000", "0x10", "12:30:45", "2026-11-29")


def input_of(pipeline: Pipeline) -> Any:
    return parameters.input_type(pipeline)


def test_parameters_become_the_type_of_the_input() -> None:
    kind = input_of(files.parse("x.toml", TOML))
    value = msgspec.json.decode('{"level": "low"}', type=kind)
    assert msgspec.structs.asdict(value) == {"ref": "main", "jobs": None, "level": "low"}
    for bad in (
        "{}", '{"level": "mid"}', '{"level": "low", "ref": "A"}', '{"level": "low", "jobs": 9}',
        '{"level": "low", "job": 1}', '{"level": "low", "jobs": "1"}',
    ):  # fmt: skip
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(bad, type=kind)


def test_defaults_of_one_input_are_not_those_of_another() -> None:
    text = "[parameters]\nmany = {type = 'list', items = 'integer', default = [1]}\n"
    kind = input_of(files.parse("x.toml", f"{text}[steps.a]\nrun = ['x']"))
    one = msgspec.json.decode("{}", type=kind)
    one.many.append(2)
    assert msgspec.json.decode("{}", type=kind).many == [1]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ("", "the parameter p has no type"),
        ("type = 'boolean', choices = [true]", "a boolean has no choices"),
        ("type = 'string', choices = [1]", "a whole number is no string"),
        ("type = 'string', choices = 'x'", "p.choices is a list of values, not a text"),
        ("type = 'string', pattern = '('", "this is no regular expression"),
        ("type = 'integer', pattern = 'x'", "an integer has no pattern"),
        ("type = 'string', minimum = 1", "a string has no minimum"),
        ("type = 'string', items = 'string'", "a string has no items"),
        ("type = 'list', items = 'list'", "'list' is no type of a parameter"),
        ("type = 'string', required = true, default = 'x'", "the parameter p is required, and has a default"),
        ("type = 'string', choices = ['a'], default = 'x'", "the default of p does not fit its type"),
        ("type = 'list', default = [1]", "the default of p does not fit its type"),
        ("type = 'integer', minimum = 1.5", "the minimum of integers is a whole number"),
        ("type = 'integer', minimum = nan", "minimum is beyond all bounds"),
        ("type = 'number', maximum = inf", "maximum is beyond all bounds"),
        ("type = 'integer', minimum = 9223372036854775808", "minimum is beyond all bounds"),
        ("type = 'integer', choices = [9223372036854775808]", "this is beyond all bounds"),
        ("type = 'number', minimum = 2, maximum = 1", "nothing is as large as the minimum and as small as the maximum"),
        ("type = 'string', defualt = 'x'", "a parameter has no 'defualt'"),
    ],
)  # fmt: skip
def test_each_mistake_of_a_parameter_is_told(fields: str, what: str) -> None:
    with pytest.raises(PipelineInvalid) as caught:
        files.parse("x.toml", f"parameters.p = {{ {fields} }}\n[steps.a]\nrun = ['x']")
    assert what in [one.what for one in caught.value.faults]


@pytest.mark.parametrize("name", ["class", "Ref", "a-b", "1a"])
def test_a_parameter_is_named_as_expressions_can_name_it(name: str) -> None:
    with pytest.raises(PipelineInvalid, match="cannot name a parameter"):
        files.parse("x.toml", f"[parameters.{name}]\ntype = 'string'\n[steps.a]\nrun = ['x']")


def test_a_directory_is_offered_as_capabilities_with_their_schemas(tmp_path: Path) -> None:
    (tmp_path / "build.toml").write_text(TOML, "utf-8")
    (tmp_path / "other.yaml").write_text("steps: {a: {run: [x]}}\ndescription: Other.", "utf-8")
    (tmp_path / "README.md").write_text("no pipeline", "utf-8")
    agent = Agent("it", version="1.0.0")
    declared = load_pipelines(agent, tmp_path, concurrency=2)
    assert [(one.name, one.concurrency) for one in declared] == [("build", 2), ("other", 2)]
    told = offer(agent, declared[0])
    [schema] = [one for name, one in told.input_schema["$defs"].items() if "Build" in name]
    assert schema["required"] == ["level"]
    assert schema["additionalProperties"] is False
    assert offer(agent, declared[1]).description == "Other."


def test_what_is_no_file_of_a_pipeline_is_told_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "it.ini").write_text("", "utf-8")
    (tmp_path / "it.toml").write_bytes(b"a = 1\n\xff")
    told = {tmp_path: "a directory", tmp_path / "it.ini": "no TOML", tmp_path / "it.toml": "UTF-8"}
    for path, what in told.items():
        with pytest.raises(PipelineInvalid, match=what):
            files.load(path)
    with pytest.raises(NotFound, match=r"no file .*gone\.toml"):
        files.load(tmp_path / "gone.toml")


def test_the_faults_of_all_files_of_a_directory_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("nmae = 'x'\n[steps.a]\nrun = ['x']", "utf-8")
    (tmp_path / "b.toml").write_text("steps = 3", "utf-8")
    (tmp_path / "c.toml").write_text("name = 'd'\n[steps.a]\nrun = ['x']", "utf-8")
    (tmp_path / "d.toml").write_text("[steps.a]\nrun = ['x']", "utf-8")
    (tmp_path / "e.toml").write_bytes(b"name = 'a'\n\xff")
    with pytest.raises(PipelineInvalid) as caught:
        files.load_directory(tmp_path)
    told = [(Path(one.file).name, one.line, one.code) for one in caught.value.faults]
    assert told == [
        ("a.toml", 1, "SG1531"), ("b.toml", 1, "SG1531"), ("d.toml", 1, "SG1531"),
        ("e.toml", 2, "SG1530"),
    ]  # fmt: skip


def test_no_directory_and_no_file_are_not_found(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFound):
            files.load_directory(missing)
    with pytest.raises(NotFound):
        files.load(tmp_path / "x.toml")
    with pytest.raises(PipelineInvalid, match="no TOML or YAML file"):
        files.load(tmp_path / "x.json")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no endless file")
def test_an_endless_file_is_refused_at_its_bound(tmp_path: Path) -> None:
    (tmp_path / "x.toml").symlink_to("/dev/zero")
    with pytest.raises(PipelineInvalid, match="larger than 1048576 bytes"):
        files.load(tmp_path / "x.toml")


PLACES = '''\
a.b . "c d" = 1  # x
e = [ 1, "two]", [3], # no ]
  { f = """x
"y" ]""", g.h = 'z' }, ]
[ t . u ]
k = 1979-05-27 07:32:00
[[v]]
w = """a""\\"""""
[[v]]
w = 2
[v.x]
y = true
'''


def test_places_are_those_of_the_text() -> None:
    document = toml.read("x.toml", PLACES)
    placed = {
        ("a", "b", "c d"): ((1, 7), (1, 15)),
        ("e", 1): ((2, 10), (2, 10)),
        ("e", 2, 0): ((2, 19), (2, 19)),
        ("e", 3, "f"): ((3, 5), (3, 9)),
        ("e", 3, "g", "h"): ((4, 13), (4, 17)),
        ("t", "u", "k"): ((6, 1), (6, 5)),
        ("v", 0, "w"): ((8, 1), (8, 5)),
        ("v", 1, "w"): ((10, 1), (10, 5)),
        ("v", 1, "x", "y"): ((12, 1), (12, 5)),
    }
    for path, (key, value) in placed.items():
        assert (document.key(path), document.at(path)) == (key, value), path


_KEYS = st.text(min_size=1, max_size=5)
_SCALARS = st.one_of(st.integers(-99, 99), st.booleans(), st.text(max_size=8))
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=8,
)


def written(value: Any) -> str:
    """The value in TOML, on one line."""
    if isinstance(value, dict):
        rows = cast("dict[str, Any]", value)
        return (
            "{" + ", ".join(f"{written(key)} = {written(one)}" for key, one in rows.items()) + "}"
        )
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return "[" + ", ".join(written(one) for one in items) + "]"
    if isinstance(value, str):
        escaped = "".join(
            char if char.isalnum() and ord(char) < 0xD800 else f"\\U{ord(char):08x}"
            for char in value
        )
        return f'"{escaped}"'
    return str(value).lower()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        return [leaf for key, one in table.items() for leaf in leaves(one, (*path, key))]
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [leaf for index, one in enumerate(items) for leaf in leaves(one, (*path, index))]
    return [(path, value)]


def agree(document: Document, value: Any, *, raw: Callable[[str], Any]) -> None:
    assert document.value == value
    for path, leaf in leaves(value):
        assert raw(document.raw(path)) == leaf


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_the_text_at_the_place_of_a_value_is_that_value(value: dict[str, Any]) -> None:
    text = "".join(f"{written(key)} = {written(one)} # x\n" for key, one in value.items())
    agree(toml.read("x.toml", text), value, raw=lambda raw: toml.read("", f"k = {raw}").value["k"])


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_so_it_is_in_yaml(value: dict[str, Any]) -> None:
    text = msgspec.json.encode(value).decode()
    text = text.replace("\x7f", "\\u007f").encode("ascii", "backslashreplace").decode()
    if "\\x" in text or "\\U" in text:  # JSON in YAML has no such escapes
        return
    agree(yaml.read("x.yaml", text), value, raw=lambda raw: yaml.read("", f"k: {raw}").value["k"])
