"""A handler that kills its process, in a mesh of `switchgear dev`: what people read about it afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.mesh import Dev, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.usefixtures("nats_binary"),
    pytest.mark.skipif(sys.platform != "linux", reason="only there processes are watched"),
]

AGENT = '''
import ctypes
from switchgear import Agent, Context

agent = Agent("fragile", version="1.0.0")

@agent.capability("divide")
async def divide(by: int, ctx: Context) -> int:
    """Divide, or die."""
    return 42 // by if by else ctypes.string_at(0)
'''


def test_crash_of_an_agent_is_shown_with_its_last_words(tmp_path: Path) -> None:
    """Its process is restarted twice; the third one that dies is the last, and its end is kept."""
    (tmp_path / "fragile.py").write_text(AGENT, encoding="utf-8")
    with Dev(tmp_path, "fragile:agent", SWITCHGEAR_LEASE="2s") as dev:
        told = dev.run("task", "submit", "divide", "0", "--wait", "--timeout", "50s", "--json")
        assert told.code == 1, told.err
        (row,) = until(lambda: dev.run("task", "ls", "--json").json["tasks"], "it is listed")
        dev.until_listed(row["id"], "dead")
        shown = dev.run("task", "show", row["id"]).out
        letter = dev.run("dead", "show", row["id"])
        assert dev.log.count("was ended by SIGSEGV") == 3
        assert dev.run("task", "submit", "divide", "2", "--wait", "--timeout", "50s").code == 0
    for screen in (shown, letter.out):
        assert "LAST WORDS of the process that died" in screen
        assert "  Fatal Python error: Segmentation fault" in screen
        assert 'fragile.py", line 10 in divide' in screen
    assert "the last one was ended by SIGSEGV" in letter.out
