"""The search for secrets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec

from switchgear_agents.repository import ScanRequest, SecretFinding
from switchgear_agents.secrets import secret_scan
from switchgear_agents.secrets.scan import scan
from tests.unit.agents.handling import context
from tests.unit.agents.repositories import Repository

KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
"""Looks like an access key; in two parts, so that this file does not."""
PLANTED = f"[default]\nkey = {KEY}\n"


def test_a_planted_secret_is_found_and_never_told(repository: Repository) -> None:
    repository.commit(config_dot_ini=PLANTED, a_dot_py="x = 1\n")
    report = scan(str(repository))
    assert SecretFinding("config.ini", 2, "AWS Access Key") in report.first
    assert report.files == 2
    assert KEY.encode() not in msgspec.json.encode(report)


def test_what_is_not_tracked_is_not_searched(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text(PLANTED, "utf-8")
    (repository.path / "link").symlink_to(tmp_path / "outside")
    repository.commit(a_dot_py="x = 1\n")
    repository.put("new.ini", PLANTED)
    report = scan(str(repository))
    assert (report.files, report.findings) == (1, 0)


def test_several_processes_find_the_same(repository: Repository) -> None:
    for n in range(40):
        repository.put(f"{n}.ini", PLANTED)
    repository.commit()
    report = scan(str(repository))
    assert {place.path for place in report.first} == {f"{n}.ini" for n in range(40)}


def test_what_the_trees_baseline_lists_is_known(repository: Repository) -> None:
    digest = hashlib.sha1(KEY.encode(), usedforsecurity=False).hexdigest()
    known = {"results": {"config.ini": [{"hashed_secret": digest, "line_number": 2}]}}
    repository.put(".secrets.baseline", json.dumps(known))
    repository.commit(config_dot_ini=PLANTED, other_dot_ini=PLANTED)
    report = scan(str(repository))
    assert {place.path for place in report.first} == {"other.ini"}
    assert report.known >= 1


def test_a_baseline_that_cannot_be_read_lists_nothing(repository: Repository) -> None:
    repository.put(".secrets.baseline", '{"results": 7}')
    repository.commit(config_dot_ini=PLANTED)
    assert scan(str(repository)).findings >= 1


def test_a_marked_line_is_left_out(repository: Repository) -> None:
    repository.commit(a_dot_py=f"key = '{KEY}'  # pragma: allowlist secret\n")
    assert scan(str(repository)).findings == 0


async def test_the_service_reports_what_was_found(repository: Repository) -> None:
    repository.commit(config_dot_ini=PLANTED)
    report = await secret_scan.handler(ScanRequest(path=str(repository)), context())
    assert report.findings >= 1
    assert report.tool.startswith("detect-secrets ")
