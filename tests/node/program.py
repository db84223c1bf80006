"""Node for tests: found, or the test is skipped; in CI a missing one is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def require_node(*packages: str) -> Path:
    """Node's executable. Skips where it or an npm package is missing, but never in CI."""
    found = shutil.which("node")
    missing = [name for name in packages if not (ROOT / "node_modules" / name).is_dir()]
    if found is not None and not missing:
        return Path(found)
    reason = "node is not installed" if found is None else f"{', '.join(missing)} not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (make node)", pytrace=False)
    pytest.skip(f"{reason} (make node)")
