"""Size and complexity of a tree."""

from __future__ import annotations

from switchgear_agents.metrics import code_metrics
from switchgear_agents.metrics.measure import measure
from switchgear_agents.repository import ComplexFunction, MetricsRequest
from tests.unit.agents.handling import context
from tests.unit.agents.repositories import Repository

COMPLEX = "def tangled(x):\n" + "".join(
    f"    if x == {n}:\n        return {n}\n" for n in range(20)
)
SIMPLE = "def plain(x):\n    return x\n"


def test_functions_are_counted_and_the_most_complex_come_first(repository: Repository) -> None:
    repository.commit(a_dot_py=COMPLEX, b_dot_py=SIMPLE)
    report = measure(str(repository))
    assert (report.files, report.functions, report.nloc) == (2, 2, 43)
    assert (report.mean_complexity, report.max_complexity, report.above) == (11.0, 21, 1)
    assert report.worst[0] == ComplexFunction("a.py", 1, "tangled", 21, 41)


def test_several_languages_are_read_and_other_files_left_out(repository: Repository) -> None:
    repository.commit(
        a_dot_py=SIMPLE,
        b_dot_js="function f(x) { return x ? 1 : 2; }\n",
        c_dot_go="func f() int { return 1 }\n",
        d_dot_txt="text\n",
    )
    repository.put("e.min.js", "function f(x) { return x; }\n")
    repository.commit()
    report = measure(str(repository))
    assert sum(report.languages.values()) == report.files == 3
    assert report.functions == 3


def test_a_tree_without_sources_is_empty(repository: Repository) -> None:
    repository.commit(a_dot_txt="text\n")
    report = measure(str(repository))
    assert (report.files, report.functions, report.mean_complexity) == (0, 0, 0.0)


async def test_the_service_reports_the_measures(repository: Repository) -> None:
    repository.commit(a_dot_py=SIMPLE)
    report = await code_metrics.handler(MetricsRequest(path=str(repository)), context())
    assert report.functions == 1
    assert report.tool.startswith("lizard ")
