"""Values lead a pipeline's step to the directories that the agent names, and to no others of its host."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchgear.agent import host_paths
from switchgear.pipelines import files, plan, specs
from switchgear.pipelines.evaluating import CannotEvaluate


def check(step: str, *roots: Path, **params: str) -> None:
    named = "".join(f'[parameters.{name}]\ntype = "string"\n' for name in params)
    pipeline = files.parse("made.toml", f'{named}[steps.a]\nrun = ["x"]\n{step}\n')
    planned = plan.plan(pipeline, params, "task-1")
    (job,) = planned.jobs
    host_paths.check(job.step, specs.spec_of(planned, job, {}), host_paths.roots(roots))


WAYS = [
    'mounts."/in" = "${{ params.it }}"',
    'mounts."/in" = { git = "file://${{ params.it }}", ref = "main" }',
    'mounts."/in/" = { path = "${{ params.it }}", writable = true }',
    'image = "rootfs:${{ params.it }}"',
    'image = "oci:${{ params.it }}"',
    'workdir = "${{ params.it }}"',
]


@pytest.mark.parametrize("step", WAYS)
def test_a_value_leads_to_a_named_directory_and_below_it(step: str, tmp_path: Path) -> None:
    check(step, tmp_path, it=str(tmp_path))
    check(step, Path("/other"), tmp_path, it=f"{tmp_path}/a/b")
    check(step, Path("/"), it="/etc")


@pytest.mark.parametrize("step", WAYS)
@pytest.mark.parametrize("to", ["", "-too", "/link"])
def test_a_value_leads_to_no_other_directory(step: str, to: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "link").symlink_to("/etc")
    it = f"{mine}{to}" if to else "/etc"
    with pytest.raises(CannotEvaluate, match=f"only to: {mine}"):
        check(step, mine, it=it)
    with pytest.raises(CannotEvaluate, match="its agent has no host_paths"):
        check(step, it=it)


@pytest.mark.parametrize(
    "step",
    [
        'mounts."/in" = "/etc"',
        'image = "rootfs:/images/one"',
        'workdir = "/srv/data"',
        'image = "python:${{ params.it }}"',
        'mounts."/in" = "/srv"\nworkdir = "/in/${{ params.it }}"',
        'image = "python:3.12"\nworkdir = "/app/${{ params.it }}"',
        'mounts."/in" = { git = "https://example.com/${{ params.it }}", ref = "main" }',
    ],
)
def test_what_the_file_says_itself_and_what_is_not_of_the_host_is_free(step: str) -> None:
    check(step, it="1")
