"""How commands find a mesh that runs in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchgear import discovery
from switchgear.cli import common


def running(state: Path) -> discovery.Running:
    return discovery.Running(url="nats://127.0.0.1:5", pid=1, state=str(state))


def test_a_running_mesh_is_found_from_a_folder_below(tmp_path: Path) -> None:
    state = tmp_path / ".switchgear"
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    lock = discovery.claim(state)
    assert lock is not None
    discovery.write(state, running(state))
    found = discovery.find(below)
    assert found is not None
    assert found.url == "nats://127.0.0.1:5"
    discovery.release(state, lock)
    assert discovery.find(below) is None


def test_what_a_killed_mesh_left_is_not_found(tmp_path: Path) -> None:
    """The kernel gives the lock back, whatever stands in the file."""
    state = tmp_path / ".switchgear"
    lock = discovery.claim(state)
    assert lock is not None
    discovery.write(state, running(state))
    data = (state / "dev.json").read_bytes()
    discovery.release(state, lock)
    (state / "dev.json").write_bytes(data)
    assert discovery.find(tmp_path) is None


def test_a_folder_has_one_mesh(tmp_path: Path) -> None:
    lock = discovery.claim(tmp_path)
    assert lock is not None
    assert discovery.claim(tmp_path) is None
    discovery.release(tmp_path, lock)
    again = discovery.claim(tmp_path)
    assert again is not None
    discovery.release(tmp_path, again)


def test_a_file_that_cannot_be_read_is_no_mesh(tmp_path: Path) -> None:
    lock = discovery.claim(tmp_path)
    assert lock is not None
    (tmp_path / "dev.json").write_text("{", encoding="utf-8")
    assert discovery.read(tmp_path) is None
    discovery.release(tmp_path, lock)


def test_a_running_mesh_stands_between_context_and_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("SWITCHGEAR_URL", "SWITCHGEAR_CONTEXT", "SWITCHGEAR_PRINCIPAL"):
        monkeypatch.delenv(name, raising=False)
    state = tmp_path / ".switchgear"
    lock = discovery.claim(state)
    assert lock is not None
    discovery.write(state, running(state))
    located = common.locate(common.COMMON)
    assert located.settings.url == "nats://127.0.0.1:5"
    assert located.origins["url"] == str(state / "dev.json")
    monkeypatch.setenv("SWITCHGEAR_URL", "nats://127.0.0.1:6")
    assert common.locate(common.COMMON).settings.url == "nats://127.0.0.1:6"
    discovery.release(state, lock)
