"""How steps are run on a host, from its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchgear.errors import ConfigError
from switchgear.steps.settings import StepSettings


def test_isolation_is_required_unless_the_environment_says_otherwise() -> None:
    assert StepSettings.load({}) == StepSettings()
    assert StepSettings().isolation == "required"
    assert StepSettings.load({"SWITCHGEAR_ISOLATION": ""}).isolation == "required"
    assert StepSettings.load({"SWITCHGEAR_ISOLATION": "preferred"}).isolation == "preferred"


def test_aliases_are_given_in_a_list_or_a_file(tmp_path: Path) -> None:
    expected = {"python:3.12": "oci:/a.tar", "tool": "rootfs:/b"}
    given = {"SWITCHGEAR_IMAGE_ALIASES": "tool=rootfs:/b, python:3.12=oci:/a.tar,"}
    assert StepSettings.load(given).aliases == expected
    file = tmp_path / "aliases"
    file.write_text("# mirrors\n\ntool = rootfs:/b\npython:3.12=oci:/a.tar\n")
    assert StepSettings.load({"SWITCHGEAR_IMAGE_ALIASES": f"@{file}"}).aliases == expected


def test_paths_and_caches_are_read() -> None:
    found = StepSettings.load({"SWITCHGEAR_SANDBOX_PATHS": "/a:/b", "XDG_CACHE_HOME": "/c"})
    assert (found.shown, found.caches) == (("/a", "/b"), "/c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SWITCHGEAR_ISOLATION", "maybe"),
        ("SWITCHGEAR_IMAGE_ALIASES", "python"),
        ("SWITCHGEAR_IMAGE_ALIASES", "=x"),
        ("SWITCHGEAR_IMAGE_ALIASES", "@/no/such/file"),
        ("SWITCHGEAR_SANDBOX_PATHS", "relative"),
        ("SWITCHGEAR_SANDBOX_PATHS", "/"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        StepSettings.load({name: value})
