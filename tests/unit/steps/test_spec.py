"""What to run, as a value."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from switchgear import ids
from switchgear.contract import codec
from switchgear.contract.artifact import Artifact
from switchgear.errors import UsageError
from switchgear.steps.sources import Cache, Git, Local, Mount, Secret, git
from switchgear.steps.spec import DEFAULT_OUTPUT, Service, StepSpec, command, container


def test_each_call_gives_a_new_value_and_keeps_what_was_set_before() -> None:
    plain = command("ruff", "check", Path("src"))
    full = (
        plain.workdir("/src")
        .env(B="2", A="1")
        .env(B="3")
        .limits(timeout=timedelta(seconds=5))
        .limits(memory=1024)
        .expect(1, 0)
        .stdin("text")
    )
    assert plain == StepSpec(commands=(("ruff", "check", "src"),))
    assert full == StepSpec(
        commands=(("ruff", "check", "src"),),
        directory="/src",
        environment=(("A", "1"), ("B", "3")),
        exit_codes=(0, 1),
        time_limit=timedelta(seconds=5),
        memory_limit=1024,
        output_limit=DEFAULT_OUTPUT,
        input="text",
    )


def test_a_spec_survives_the_codec_and_is_equal_by_content() -> None:
    spec = command("make").env(A="1").limits(timeout=timedelta(minutes=1))
    again = msgspec.json.decode(msgspec.json.encode(spec), type=StepSpec)
    assert again == spec
    assert len({again, spec}) == 1


@pytest.mark.parametrize("args", [(), ("",), ("a\0b",)])
def test_a_command_that_cannot_be_run_is_refused(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        command(*args)


def test_settings_that_make_no_sense_are_refused() -> None:
    spec = command("true")
    with pytest.raises(UsageError, match="timeout"):
        spec.limits(timeout=timedelta(0))
    with pytest.raises(UsageError, match="memory"):
        spec.limits(memory=0)
    with pytest.raises(UsageError, match="output"):
        spec.limits(output=-1)
    with pytest.raises(UsageError, match="exit code"):
        spec.expect()
    with pytest.raises(UsageError, match="NUL"):
        spec.env(A="\0")
    with pytest.raises(UsageError, match="name"):
        spec.env(**{"A=B": "1"})


ARTIFACT = Artifact(digest="ab" * 32, size=5, name="wheel", directory=True)


def test_a_container_says_all_that_it_needs() -> None:
    database = container("postgres:17").exec("postgres")
    spec = (
        container("python:3.12-slim")
        .mount("/src", git("https://example.com/repo", "v1.2"))
        .mount("/in", ARTIFACT)
        .mount("/data", Path("/srv/data"), read_only=False)
        .cache("/var/cache/pip", "pip", sharing="locked")
        .secret("TOKEN", "env://PUBLISH_TOKEN")
        .service("db", database)
        .workdir("/src")
        .exec("make", "test")
        .exec("make", "wheel")
        .output("wheel", "dist")
        .network()
        .idempotent()
        .cacheable()
        .limits(cpu=timedelta(minutes=1), file=10, files=20)
        .expect(0, 137, 255)
    )
    assert spec == StepSpec(
        image="python:3.12-slim",
        commands=(("make", "test"), ("make", "wheel")),
        directory="/src",
        secrets=(Secret("TOKEN", "env://PUBLISH_TOKEN"),),
        mounts=(
            Mount("/data", Local("/srv/data"), read_only=False),
            Mount("/in", ARTIFACT),
            Mount("/src", Git("https://example.com/repo", "v1.2")),
        ),
        caches=(Cache("/var/cache/pip", "pip", "locked"),),
        services=(Service("db", database),),
        declared_outputs=(("wheel", "dist"),),
        networked=True,
        exit_codes=(0, 137, 255),
        cpu_limit=timedelta(minutes=1),
        file_limit=10,
        open_limit=20,
        repeatable=True,
        reusable=True,
    )
    again = msgspec.json.decode(msgspec.json.encode(spec), type=StepSpec)
    assert (again, hash(again)) == (spec, hash(spec))


def test_the_order_of_calls_that_do_not_depend_on_each_other_does_not_matter() -> None:
    def digest(spec: StepSpec) -> str:
        return ids.digest(codec.canonical(spec))

    plain = command("make")
    one = (
        plain.mount("/a", "/x").mount("/b", "/y").env(A="1").output("o", "p").secret("S", "env://S")
    )
    two = (
        plain.secret("S", "env://S").output("o", "p").env(A="1").mount("/b", "/y").mount("/a", "/x")
    )
    assert digest(one) == digest(two)
    assert digest(one) != digest(plain)
    assert digest(plain.exec("true")) != digest(command("true").exec("make"))


def test_a_later_mount_cache_or_secret_takes_the_place_of_an_earlier() -> None:
    spec = (
        command("make").mount("/a", "/x").mount("/a/", "/y").cache("/c", "one").cache("/c", "two")
    )
    assert [one.source for one in spec.mounts] == [Local("/y")]
    assert [one.name for one in spec.caches] == ["two"]


@pytest.mark.parametrize(
    "ref", ["swordfish", "env://", "env://A/B", "file://relative", "vault://x"]
)
def test_a_secret_is_never_given_by_its_text(ref: str) -> None:
    with pytest.raises(UsageError, match="not given by reference") as caught:
        command("true").secret("TOKEN", ref)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("codes", [(256,), (-1,), (0, 1000)])
def test_exit_codes_are_what_a_process_can_give(codes: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        command("true").expect(*codes)


@pytest.mark.parametrize("path", ["", "relative", "/", "/a/../..", "/..", "/a\0b"])
def test_a_mount_has_an_absolute_place(path: str) -> None:
    with pytest.raises(UsageError):
        command("true").mount(path, "/x")
    with pytest.raises(UsageError):
        command("true").cache(path, "it")


@pytest.mark.parametrize("name", ["", "../x", ".locks", "a/b", "x" * 65])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(UsageError):
        command("true").cache("/c", name)
    with pytest.raises(UsageError):
        command("true").output(name, "x")
    with pytest.raises(UsageError):
        command("true").service(name, command("x"))


def test_a_service_listens_on_ports_within_a_time() -> None:
    database = container("postgres:17").exec("postgres")
    spec = command("true").service("db", database, ports=[5433, 5432, 5432])
    assert spec.services == (Service("db", database, (5432, 5433)),)
    assert spec.services[0].start_seconds == 30
    assert msgspec.json.decode(msgspec.json.encode(spec), type=StepSpec) == spec
    plain = msgspec.json.encode(command("true").service("db", database))
    assert b"ports" not in plain
    assert b"start_limit" not in plain


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_a_number_of_tcp(port: int) -> None:
    with pytest.raises(UsageError, match="port"):
        command("true").service("db", command("x"), ports=[port])


def test_a_service_has_time_to_start() -> None:
    with pytest.raises(UsageError, match="start"):
        command("true").service("db", command("x"), start=timedelta(0))


@pytest.mark.parametrize(
    "spec",
    [
        command("x").service("inner", command("y")),
        command("x").output("it", "it"),
        command("x").stdin("text"),
        command("x").limits(timeout=timedelta(seconds=1)),
    ],
)
def test_what_would_mean_nothing_for_a_service_is_refused(spec: StepSpec) -> None:
    with pytest.raises(UsageError, match="of its own"):
        command("true").service("db", spec)


@pytest.mark.parametrize("path", ["", "../x", "a/../../x", "/a/.."])
def test_an_output_lies_where_its_path_says(path: str) -> None:
    with pytest.raises(UsageError):
        command("true").output("it", path)


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("ext::sh -c id", "main"),
        ("--upload-pack=id", "main"),
        ("https://user:word@example.com/x", "main"),
        ("https://token@example.com/x", "main"),
        ("ssh://-oProxyCommand=id/x", "main"),
        ("http://example.com/x", "main"),
        ("https://example.com/x", "--output=x"),
        ("https://example.com/x", "a..b"),
        ("https://example.com/x", "a:b"),
        ("https://example.com/x", ""),
    ],
)
def test_a_commit_is_named_by_nothing_that_git_would_execute(url: str, ref: str) -> None:
    with pytest.raises(UsageError):
        git(url, ref)


def test_what_is_no_image_is_refused_when_it_is_written() -> None:
    with pytest.raises(UsageError):
        container("not an image")
    with pytest.raises(UsageError):
        container("alpine").exec()


FOREIGN: list[dict[str, object]] = [
    {"caches": [{"path": "/c", "name": "../../escaped"}]},
    {"services": [{"name": "../escaped", "spec": {"commands": []}}]},
    {"services": [{"name": "db", "spec": {"commands": []}, "ports": [65536]}]},
    {"declared_outputs": [["../escaped", "out"]]},
    {"declared_outputs": [["out", "../escaped"]]},
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_a_spec_from_outside_cannot_name_places_that_its_methods_refuse(
    foreign: dict[str, object],
) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"commands": [["true"]], **foreign}, StepSpec)
