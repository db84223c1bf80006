"""Documents say what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from switchgear import errors
from switchgear.contract import codes
from switchgear.coordinator.settings import CoordinatorSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAX_LINE = 120


def test_every_error_code_stands_on_the_reference_page() -> None:
    """A code that a user meets can be looked up, with its meaning."""
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    known = {
        kind.code: kind.__name__
        for kind in errors.all_errors()
        if kind.__module__ == errors.__name__
    }
    tables = {**codes.PROTOCOL_CODES, **codes.REJECTIONS, **codes.FAILURES, **codes.PIPELINE_CODES}
    missing = [code for code, name in known.items() if f"| {code} | `{name}` |" not in page]
    missing += [code for code in tables if f"| {code} | " not in page]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link names a file or folder of the repository."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_text_have_at_most_120_characters(page: Path) -> None:
    """Rows of tables and blocks of code cannot be wrapped; all else is read in editors and diffs, too."""
    is_code, long = False, list[int]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        if len(line) > MAX_LINE and not is_code and not line.lstrip().startswith("|"):
            long.append(number)
    assert long == []


def test_every_variable_stands_on_the_settings_page() -> None:
    """What the code reads from the environment is told there, and nothing that it does not read."""
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    sources = [*(ROOT / "runtime").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    fields = msgspec.structs.fields(CoordinatorSettings)
    read = set(re.findall(r"""["'](SWITCHGEAR_[A-Z_]+[A-Z]|NATS_SERVER_BIN)["']""", code))
    read |= {f"SWITCHGEAR_{field.name.upper()}" for field in fields}
    assert set(re.findall(r"SWITCHGEAR_[A-Z_]+|NATS_SERVER_BIN", page)) == read


def test_every_extra_stands_on_the_install_page() -> None:
    """What can be installed is told there, but for what only developers of this repository need."""
    page = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = set(re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE))
    assert told == project["optional-dependencies"].keys() - {"dev"}
