"""What an agent declares as its times."""

from __future__ import annotations

from typing import Any

import pytest

from switchgear.contract import codec
from switchgear.contract.announcement import CronTrigger
from switchgear.contract.cron import Cron
from switchgear.errors import UsageError


def test_a_declared_cron_can_be_read_by_all() -> None:
    """Whatever its policies."""
    made = Cron("30 6 * * *", {"n": 1}, timezone="Europe/Berlin", missed="all", overlap="cancel")
    sent = made.trigger()
    assert codec.decode(codec.encode(sent), CronTrigger) == sent


@pytest.mark.parametrize(("given", "told"), [("missed", "latest, all"), ("overlap", "skip, queue")])
def test_a_policy_that_nobody_knows_is_refused_where_it_is_written(given: str, told: str) -> None:
    """An announcement with it would hide the whole agent."""
    options: dict[str, Any] = {given: "sometimes"}
    with pytest.raises(UsageError, match="'sometimes' is no") as refused:
        Cron("30 6 * * *", **options)
    assert told in refused.value.fix
