"""Every mistake in a file is told at once, at its line and column, with a code and a way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.pipelines import files
from switchgear.pipelines.faults import PipelineFault, PipelineInvalid


def faults(text: str, file: str = "it.toml") -> list[PipelineFault]:
    with pytest.raises(PipelineInvalid) as caught:
        files.parse(file, text)
    return list(caught.value.faults)


def found(text: str, file: str = "it.toml") -> list[tuple[int, int, str, str]]:
    return [(one.line, one.column, one.code, one.what) for one in faults(text, file)]


EVERYTHING = """\
name = "demo"
tiemout = "5m"
concurrency = "many"

[parameters.who]
type = "strin"

[parameters.n]
type = "integer"
default = "x"

[steps.a]
needs = ["c"]
run = ["echo", "${{ params.whom }}", "${{ steps.b.stdout }}"]

[steps.b]
needs = ["a", "lint"]
run = "echo hi"
if = "params.n = 3"
retry = { attemps = 3 }

[steps.c]
needs = ["b"]
script = \"\"\"
echo one
echo ${{ params.who }}
\"\"\"

[steps.big]
matrix = { a = [1,2,3,4,5,6,7,8,9], b = [1,2,3,4,5,6,7,8], c = [3.10] }
run = ["x"]
mounts."/in" = { artifact = "a.tree" }
"""


def test_all_faults_of_a_file_are_told_at_once_by_place() -> None:
    assert found(EVERYTHING) == [
        (2, 1, "SG1531", "a pipeline has no 'tiemout'"),
        (3, 15, "SG1531", "concurrency is a whole number from 1 to 64, not a text"),
        (6, 8, "SG1531", "'strin' is no type of a parameter"),
        (10, 11, "SG1531", "the default of n does not fit its type"),
        (13, 10, "SG1532", "the steps need each other: a → c → b → a"),
        (14, 28, "SG1533", "there is no parameter whom"),
        (17, 15, "SG1532", "b needs lint, which is no step"),
        (18, 7, "SG1531", "b.run is a list of texts, not a text"),
        (19, 16, "SG1533", "'=' cannot stand here"),
        (20, 11, "SG1531", "a retry has no 'attemps'"),
        (26, 6, "SG1531", "a script holds no ${{ }}"),
        (30, 65, "SG1531", "3.1 is a number, and would lose its trailing zeros"),
        (32, 29, "SG1532", "big mounts what a makes, and does not need it"),
        (32, 29, "SG1532", "a has no output 'tree'"),
    ]


def test_a_fault_says_why_and_what_mends_it() -> None:
    told = {one.what: str(one) for one in faults(EVERYTHING)}
    assert told["a pipeline has no 'tiemout'"] == (
        "it.toml:2:1: SG1531: a pipeline has no 'tiemout'. Fix: did you mean timeout?"
    )
    script = told["a script holds no ${{ }}"]
    assert "because what is filled in would be run as code. Fix: hand it over: env.NAME" in script


def test_the_error_holds_all_faults_and_the_code_of_the_first() -> None:
    with pytest.raises(PipelineInvalid) as caught:
        files.parse("it.toml", EVERYTHING)
    assert caught.value.code == "SG1531"
    assert caught.value.what == "14 faults in it.toml"
    assert "it.toml:13:10: SG1532" in caught.value.why


YAML = """\
name: demo
on: [push]
steps:
  a:
    run: [echo, "${{ foo.x }}"]
    needs: [b]
  b:
    if: steps.a.outcome == "success"
    script: |
      echo 1

      echo ${{ params.x }}
  a:
    run: [x]
  c:
    run: [!!python/name:os.system x]
    matrix: {python: [3.10, "3.11"], no: [on, yes]}
"""


def test_yaml_is_told_as_precisely() -> None:
    assert found(YAML, "it.yaml") == [
        (2, 1, "SG1531", "a pipeline has no 'on'"),
        (5, 22, "SG1533", "foo is not known"),
        (8, 15, "SG1533", "b does not need a, which may end later"),
        (12, 12, "SG1531", "a script holds no ${{ }}"),
        (13, 3, "SG1531", "the step a is declared twice"),
        (16, 11, "SG1531", "the tag tag:yaml.org,2002:python/name:os.system means nothing here"),
        (16, 11, "SG1531", "c.run[0] is a text, not empty"),
        (17, 23, "SG1531", "3.1 is a number, and would lose its trailing zeros"),
    ]


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("it.toml", "name = 'a'\nsteps = {\n", (2, 10)),
        ("it.toml", "name = 'a'\nname = 'b'\n", (2, 11)),
        ("it.yaml", "steps:\n  a: [b\n", (3, 1)),
        ("it.yaml", "a: 1\n b: 2\n", (2, 3)),
    ],
)
def test_a_file_that_cannot_be_parsed_is_told_at_the_place(
    file: str, text: str, place: tuple[int, int]
) -> None:
    [fault] = faults(text, file)
    assert (fault.line, fault.column) == place
    assert fault.code in {"SG1530", "SG1531"}


def test_a_step_that_stands_twice_in_toml_is_named() -> None:
    [fault] = faults('[steps.a]\nrun = ["x"]\n[steps.a]\nrun = ["y"]\n')
    assert (fault.line, fault.code) == (3, "SG1531")
    assert fault.what == "the step a is declared twice"


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("", "the step a does nothing"),
        ('run = ["x"]\nscript = "y"', "a has both a run and a script"),
        ('run = [["x"], []]', "a.run[1] is a list of texts, as all of them, not an empty list"),
        ('run = ["x", 3]', "a.run[1] is a text, not a whole number"),
        ('run = ["x"]\ninterpreter = "sh"', "an interpreter is for a script"),
        ('run = ["x"]\ntimeout = "5 minutes"', "timeout: '5 minutes' is no time"),
        ('run = ["x"]\nmemory = "5 MB"', "memory: '5 MB' is no size"),
        (
            'run = ["x"]\nexpect = [256]',
            "a.expect is a list of exit codes from 0 to 255, not a list",
        ),
        ('run = ["x"]\nretry = 0', "retry is a whole number from 1 to 100, not 0"),
        ('run = ["x"]\nretry.on = ["stepp"]', "'stepp' is no class of errors"),
        ('run = ["x"]\nretry.factor = 0.5', "factor is from 1 to 100"),
        ('run = ["x"]\nsecrets.TOKEN = "hunter2"', "the secret TOKEN is not given by reference"),
        ('run = ["x"]\nmounts."src" = "/x"', "a mount at 'src' has no place"),
        ('run = ["x"]\nmounts."/s" = {}', "/s has no sources"),
        ('run = ["x"]\nmounts."/s" = {git = "https://x/y"}', "a git mount has a ref"),
        ('run = ["x"]\nmounts."/s" = {artifact = "tree"}', "'tree' names no artifact"),
        ('run = ["x"]\nmounts."/s" = {artifact = "b.tree"}', "there is no step b"),
        ('run = ["x"]\noutputs.x = "../x"', "'../x' is no path of an output"),
        ('run = ["x"]\ncaches."/c" = "a b"', "'a b' cannot name a cache"),
        ('run = ["x"]\nmatrix.v = []', "matrix.v is a list of values, not an empty list"),
        ('run = ["x"]\nmatrix.v = [1, 1]', "1 stands twice in the matrix"),
        ('run = ["x"]\nmatrix.v = "${{ params.vs }}"', "there is no parameter vs"),
        ('run = ["x"]\nmatrix.v = [1]\nexclude = [{w = 1}]', "the matrix has no 'w'"),
        ('run = ["${{ matrix.v }}"]', "there is no axis of this step's matrix v"),
        ('run = ["${{ always() }}"]', "always() can only stand in `if`"),
        ('run = ["${{ len() }}"]', "len takes 1 argument, not 0"),
        ('run = ["${{ lenn(1) }}"]', "there is no function lenn"),
        ('run = ["${{ params }}"]', "params is no value"),
        ('run = ["${{ 1 "]', "'${{' is never closed"),
        ('run = ["${{ \'a }}"]', "'${{' is never closed"),
        ('run = ["x"]\nworkdir = "src"', "workdir is no absolute path"),
        ('run = ["x"]\nenv."a b" = "x"', "'a b' cannot name a variable"),
        ('run = ["x"]\nenv.self = "x"', "'self' cannot name a variable"),
        ('run = ["x"]\ntimeout = "0.0000001s"', "timeout: '0.0000001s' is no time"),
        (f'run = ["x"]\nmemory = "{"9" * 5000}GiB"', f"memory: '{'9' * 40}' is no size"),
        (
            'run = ["x"]\nretry = {initial = "5m", max_delay = "1m"}',
            "the first pause is longer than max_delay",
        ),
        ('run = ["x"]\nworkdir = "/a/../b"', "workdir leads upwards"),
        ('run = ["x"]\nmounts."/s" = "src"', "the mounted path is no absolute path"),
        ('run = ["x"]\nmounts."/s" = "/x/../y"', "the mounted path leads upwards"),
        ('run = ["x"]\nmounts = {"/s" = "/x", "/s/" = "/y"}', "two things are mounted at /s"),
        ('run = ["x"]\ncaches."/s" = "c"\nmounts."/s" = "/y"', "two things are mounted at /s"),
        (
            'run = ["x"]\nmounts."/s" = {path = "/x", optional = true}',
            "optional is for a mount of artifact",
        ),
        ('run = ["x"]\nmounts."/s" = {path = "/x", ref = "v1"}', "ref is for a mount of git"),
        (
            'run = ["x"]\nmounts."/s" = {git = "https://x/y", ref = "-o"}',
            "'-o' is no branch, tag or commit",
        ),
        ('run = ["x"]\nimage = "Not an image"', "'Not an image' is no image"),
        ('run = [""]', "a command needs a program"),
        ('script = " "', "the script is empty"),
        ('run = ["x"]\nenv.A = "\\u0000"', "the variable A of a step contains a NUL character"),
        ('run = ["x"]\nmatrix.v = ["1", 1]', "1 stands twice in the matrix"),
        ('run = ["x"]\nif = "${{ true }}"', "`if` is an expression, without ${{ }}"),
        ('run = [["x"], ["y", true]]', "a.run[1][1] is a text, not true or false"),
        (
            'run = ["x"]\nif = "task.id"',
            "a condition is true or false, and this is a text or a number",
        ),
        ('run = ["x"]\nif = "steps.z.outcome == 1"', "there is no step z"),
    ],
)
def test_each_mistake_of_a_step_is_told(step: str, what: str) -> None:
    assert what in [one.what for one in faults(f"[steps.a]\n{step}\n")]


CODE = "a script holds no ${{ }}"


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ('run = ["sh", "-c", "echo ${{ params.p }}"]', (4, 26)),
        ('run = [["make"], ["/bin/bash", "-lc", "echo", "${{ params.p }}"], ["sh", "-c", "${{ params.p }}"]]', (4, 81)),
        ('run = ["sh", "-e", "-c", "--", "${{ params.p }}"]', (4, 33)),
        ('run = ["env", "A=1", "python3", "-Ic", "print(${{ params.p }})"]', (4, 47)),
        ('run = ["perl", "-ne", "${{ params.p }}"]', (4, 24)),
        ('run = ["python3", "-cprint(${{ params.p }})"]', (4, 28)),
        ('run = ["node", "--eval=${{ params.p }}"]', (4, 24)),
        ('run = ["node", "--print", "${{ params.p }}"]', (4, 28)),
        ('run = ["tcsh", "-c", "${{ params.p }}"]', (4, 23)),
        ('run = ["sh"]\nstdin = "echo ${{ params.p }}"', (5, 15)),
        ('script = """\nset -x\necho ${{ params.p }}"""', (6, 6)),
    ],
)  # fmt: skip
def test_no_value_is_filled_into_code(step: str, place: tuple[int, int]) -> None:
    """Whoever submits a task would write a part of it."""
    text = f"[parameters.p]\ntype = 'string'\n[steps.a]\n{step}\n"
    assert found(text) == [(*place, "SG1531", CODE)]


@pytest.mark.parametrize(
    "step",
    [
        'run = ["sh", "-c", "echo \\"$1\\"", "x", "${{ params.p }}"]',
        'run = ["sh", "script.sh", "${{ params.p }}"]',
        'run = ["tar", "-c", "${{ params.p }}"]',
        'run = ["docker", "run", "node", "-e", "A=${{ params.p }}"]',
        'run = ["sh"]\nstdin = "echo"',
        'run = ["python3", "x.py"]\nstdin = "${{ params.p }}"',
    ],
)
def test_arguments_of_code_and_of_other_programs_are_filled_in(step: str) -> None:
    files.parse("it.toml", f"[parameters.p]\ntype = 'string'\n[steps.a]\n{step}\n")


@pytest.mark.parametrize(
    "step",
    [
        'script = "x"\ninterpreter = ["sh", "${{ params.p }}"]',
        'run = ["x"]\nsecrets.T = "env://${{ params.p }}"',
        'run = ["x"]\noutputs.x = "${{ params.p }}"',
        'run = ["x"]\ncaches."/${{ params.p }}" = "x"',
        'run = ["x"]\nmounts."/in/${{ params.p }}" = "/x"',
        'run = ["x"]\nmatrix.v = ["a", "${{ params.p }}"]',
        'run = ["x"]\nneeds = ["${{ params.p }}"]',
    ],
)
def test_where_nothing_is_filled_in_it_is_told(step: str) -> None:
    """It would count as it is written, and surprise when the step runs."""
    assert "${{ }} cannot stand here" in [one.what for one in faults(f"[steps.a]\n{step}\n")]


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("it.toml", f"steps.a.run = ['x']\nattempts = {'9' * 5000}\n", (2, 12)),
        ("it.toml", "steps.a.run = ['x']\ntimeout = 2026-02-30\n", (2, 11)),
        ("it.yaml", f"steps: {{a: {{run: [x]}}}}\nattempts: {'9' * 5000}\n", (2, 11)),
    ],
)
def test_a_value_that_no_program_can_read_is_told(
    file: str, text: str, place: tuple[int, int]
) -> None:
    [(*at, _, _)] = found(text, file)
    assert tuple(at) == place


def test_a_file_of_nothing_but_mistakes_is_told_in_a_moment() -> None:
    text = "".join(f"k{number} = 1\n" for number in range(20_000))
    assert len(faults(text)) == 100


def test_the_arguments_of_one_command_in_a_list_have_places() -> None:
    assert found('[steps.a]\nrun = [["x", "y", "${{ z.z }}"]]\n') == [
        (2, 24, "SG1533", "z is not known")
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name = 'x'", "a pipeline has steps"),
        ("[steps]", "a pipeline has steps"),
        ("steps = []", "steps is a table, not a list"),
        ("[[steps]]\nname = 'a'", "steps is a table, not a list"),
        ("steps.a = 3", "steps.a is a table, not a whole number"),
        ("name = 'a b'\nsteps.a.run = ['x']", "'a b' cannot name a pipeline"),
        ("steps.'a b'.run = ['x']", "'a b' cannot name a step"),
        ("steps.a = {run = ['x'], needs = ['b', 'b']}\nsteps.b.run = ['x']", "a needs b twice"),
        ("steps.a = {run = ['x'], needs = ['a']}", "the steps need each other: a → a"),
        ("steps.a = {run = ['x'], matrix = {'a b' = [1]}}", "'a b' cannot name an axis"),
        ("steps.a = {run = ['x'], matrix = {v = ['1']}, exclude = [{v = 2}]}",
         "2 is no value of v, so this excludes nothing"),
        ("steps.a = {run = ['x'], exclude = 3}", "a.exclude is a list of tables, not a whole number"),
        ("steps.a = {run = ['x'], env = 'A=1'}", "a.env is a table, not a text"),
        ("steps.a = {run = ['x'], network = 'yes'}", "a.network is true or false, not a text"),
        ("steps.a = {run = ['x'], image = 3}", "a.image is a text, not a whole number"),
        ("steps.a = {run = ['x'], retry = {factor = 'x'}}", "retry.factor is a number, not a text"),
        ("steps.a = {run = ['x'], needs = 1979-05-27}", "a.needs is a list of texts, not a date"),
        ("steps.a.run = ['x']\noutputs.x = '${{ steps.b.stdout }}'", "there is no step b"),
        ("steps.a.run = ['x']\noutputs.x = '${{ matrix.b }}'", "there is no axis of this step's matrix b"),
    ],
)  # fmt: skip
def test_each_mistake_of_a_pipeline_is_told(text: str, what: str) -> None:
    assert what in [one.what for one in faults(text)]


def test_a_yaml_file_that_is_no_table_is_told() -> None:
    assert found("- a\n- b\n", "it.yaml") == [(1, 1, "SG1531", "a pipeline is a table")]
    assert (1, 3, "SG1531", "a key is no text") in found("? [a]\n: b\n", "it.yaml")


NEEDED = """\
[steps.m]
matrix.v = [1, 2]
run = ["x"]
outputs.tree = "t"
[steps.a]
needs = ["m", "b"]
run = ["x", "${{ steps.m.stdout }}", "${{ steps.b.outputs.x }}", "${{ steps.b.code }}"]
[steps.b]
run = ["x"]
outputs.tree = "t"
"""


def test_what_a_needed_step_does_not_have_is_told() -> None:
    assert [what for *_, what in found(NEEDED)] == [
        "m has a matrix, and so more than one stdout",
        "b has no such output",
        "a step has no code",
    ]


@given(
    file=st.sampled_from(["it.toml", "it.yaml"]),
    cuts=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 30)), max_size=3),
    put=st.text(alphabet="[]{}'\"=:,.# \n\\&*!|>-$a1é\0", max_size=4),
)
def test_a_file_with_anything_in_it_is_a_pipeline_or_has_faults_with_places(
    file: str, cuts: list[tuple[int, int]], put: str
) -> None:
    text = EVERYTHING if file == "it.toml" else YAML
    for at, length in cuts:
        text = text[:at] + put + text[at + length :]
    lines = text.count("\n") + 1
    try:
        files.parse(file, text)
    except PipelineInvalid as invalid:
        told = [one for one in invalid.faults if not 1 <= one.line <= lines or one.column < 1]
    else:
        told = []
    assert told == []


def test_limits_are_told() -> None:
    wide = "[steps.a]\nrun = ['x']\n" + "".join(f"matrix.{axis} = [1,2,3,4,5]\n" for axis in "abc")
    assert found(wide) == [(3, 1, "SG1534", "125 combinations are more than 64")]
    many = "".join(f"[steps.s{number}]\nrun = ['x']\n" for number in range(101))
    assert [one[2:] for one in found(many)] == [("SG1534", "101 steps are more than 100")]


def test_a_few_lines_of_aliases_cannot_stand_for_billions() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "SG1534" in {code for _, _, code, _ in found("\n".join(rows), "it.yaml")}
    assert "SG1534" in {code for _, _, code, _ in found("a: &a [*a]", "it.yaml")}


@pytest.mark.parametrize("file", ["it.toml", "it.yaml"])
def test_deep_nesting_is_refused(file: str) -> None:
    key = "a = " if file == "it.toml" else "a: "
    assert found(key + "[" * 100_000, file)
