"""Small real git repositories, and a cache of each test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.agents.repositories import Repository


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of the agents are the test's own; packages still come from the user's cache of uv."""
    former = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    monkeypatch.setenv("UV_CACHE_DIR", os.environ.get("UV_CACHE_DIR") or str(former / "uv"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SWITCHGEAR_ISOLATION", "preferred")
    return tmp_path / "cache" / "switchgear"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with no commit yet."""
    return Repository(tmp_path / "repository")
