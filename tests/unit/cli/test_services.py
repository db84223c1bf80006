"""Services refuse what would be silently ignored."""

from __future__ import annotations

import pytest

from switchgear.cli import services
from switchgear.errors import UsageError


def test_an_archive_format_without_an_archive_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says how to archive means that what is deleted is archived."""
    monkeypatch.delenv("SWITCHGEAR_ARCHIVE", raising=False)
    monkeypatch.setenv("SWITCHGEAR_URL", "nats://127.0.0.1:1")
    with pytest.raises(UsageError, match="--archive-format needs --archive"):
        services.coordinator(archive_format="parquet")
