"""What a coordinator may be told, and by what."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.errors import ConfigError


def test_given_values_beat_the_environment_and_that_the_defaults() -> None:
    """Each value by itself."""
    environment = {
        "SWITCHGEAR_RETENTION_AGE": "12h",
        "SWITCHGEAR_RETENTION_COUNT": "1000",
        "SWITCHGEAR_OWNER_RATE": "2.5",
        "SWITCHGEAR_LEDGER_HARD_LIMIT": "1048576",
        "SWITCHGEAR_ARCHIVE": "/var/archive",
        "SWITCHGEAR_BACKLOG_LIMIT": "",
    }
    found = CoordinatorSettings.load(environment, retention_count=7, archive=None)
    assert found.retention_age == timedelta(hours=12)
    assert found.retention_count == 7
    assert found.owner_rate == 2.5
    assert found.ledger_hard_limit == 1_048_576
    assert found.archive == Path("/var/archive")
    assert found.backlog_limit == CoordinatorSettings().backlog_limit


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RETENTION_AGE", "a week"),
        ("RETENTION_AGE", "0s"),
        ("RETENTION_COUNT", "many"),
        ("RETENTION_COUNT", "0"),
        ("OWNER_RATE", "-1"),
    ],
)
def test_value_that_cannot_be_used_is_named(name: str, text: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=f"(?i){name}"):
        CoordinatorSettings.load({f"SWITCHGEAR_{name}": text})


def test_word_that_is_none_of_those_that_are_known_is_told_with_them() -> None:
    """Under the name of the variable."""
    told = "SWITCHGEAR_ARCHIVE_FORMAT='csv' is none of jsonl, parquet"
    with pytest.raises(ConfigError, match=told):
        CoordinatorSettings.load({"SWITCHGEAR_ARCHIVE_FORMAT": "csv"})
    found = CoordinatorSettings.load({"SWITCHGEAR_ARCHIVE_FORMAT": "parquet"})
    assert found.archive_format == "parquet"
