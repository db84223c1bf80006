"""Reading pytest's report."""

from __future__ import annotations

from pathlib import Path

from switchgear_agents.pytest_runner.junit import read
from switchgear_agents.repository import FailedTest, SlowTest

REPORT = """<?xml version="1.0"?><testsuites><testsuite time="2.5">
<testcase classname="tests.test_a" name="test_good" time="0.5"/>
<testcase classname="tests.test_a" name="test_bad" time="1.5">
  <failure message="assert 1 == 2">long text</failure></testcase>
<testcase classname="" name="tests.test_b" time="0"><error>collection failure</error></testcase>
<testcase time="0"/>
<testcase classname="tests.test_a" name="test_later" time="x"><skipped message="no"/></testcase>
</testsuite></testsuites>"""


def test_counts_failures_and_slowest_tests_are_read(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    file.write_text(REPORT, "utf-8")
    report = read(file)
    assert (report.passed, report.failed, report.errors, report.skipped) == (1, 1, 1, 1)
    assert report.seconds == 2.5
    assert report.failures == [
        FailedTest("tests.test_a::test_bad", "assert 1 == 2"),
        FailedTest("tests.test_b", "collection failure"),
    ]
    assert report.slowest[0] == SlowTest("tests.test_a::test_bad", 1.5)


def test_a_report_that_cannot_be_read_counts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    assert read(file).passed == 0
    file.write_text("<testsuites>", "utf-8")
    assert read(file).passed == 0
