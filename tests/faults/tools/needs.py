"""What a test needs of the machine: without it the test skips, but in CI it fails."""

from __future__ import annotations

import os

import pytest


def need(missing: str) -> None:
    """Skip with this reason, or fail with it in CI; go on if it is empty."""
    if not missing:
        return
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
