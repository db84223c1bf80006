"""How long tests wait for what must come."""

from __future__ import annotations

PATIENCE = 60.0
"""Seconds: a guard against hanging, and no measure. Where nothing is wrong hardly any of it is used, but a machine with
other work may be many times slower than usual."""
