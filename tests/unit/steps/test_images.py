"""What an image may be, and where aliases lead."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.errors import UsageError
from switchgear.steps import images
from switchgear.steps.images import Image

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "host", "digest"),
    [
        ("alpine", "docker.io", ""),
        ("python:3.12-slim", "docker.io", ""),
        ("library/python:3.12", "docker.io", ""),
        ("registry.example:5000/team/tool:1", "registry.example:5000", ""),
        ("localhost/tool", "localhost", ""),
        ("ghcr.io/owner/tool", "ghcr.io", ""),
        (f"alpine@{DIGEST}", "docker.io", DIGEST),
        (f"ghcr.io/owner/tool:1@{DIGEST}", "ghcr.io", DIGEST),
    ],
)
def test_a_reference_tells_its_registry_and_its_digest(text: str, host: str, digest: str) -> None:
    assert images.parse(text) == Image(kind="registry", text=text, host=host, digest=digest)


def test_files_are_told_from_references() -> None:
    assert images.parse("oci:/a/b.tar") == Image(kind="oci", text="/a/b.tar")
    assert images.parse("rootfs:/a") == Image(kind="rootfs", text="/a")


@pytest.mark.parametrize(
    "text", ["", "oci:", "rootfs:", "a b", "-x", "a@sha256:short", "a\0b", "a\n", "$(id)", "a:"]
)
def test_what_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        images.parse(text)


@given(st.text())
def test_any_text_is_an_image_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert images.parse(text).text in text


def test_aliases_redirect_whole_references_first_then_the_longest_prefix() -> None:
    aliases = {
        "python:3.12": "oci:/images/python.tar",
        "python*": "mirror.example/python*",
        "*": "mirror.example/library/*",
        "ghcr.io/*": f"alpine@{DIGEST}",
    }
    assert images.resolve("python:3.12", aliases).kind == "oci"
    assert images.resolve("python:3.13", aliases).text == "mirror.example/python:3.13"
    assert images.resolve("alpine:3", aliases).text == "mirror.example/library/alpine:3"
    assert images.resolve("ghcr.io/owner/tool", aliases).digest == DIGEST
    assert images.resolve("alpine:3", {}).text == "alpine:3"
