"""What we send is what the installed SDK's engine understands: every captured query is valid in its schema."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphql import GraphQLObjectType, parse, validate, validate_schema

from switchgear.steps.spec import container
from tests.dagger.engine import Engine
from tests.dagger.schema import schema, sdl
from tests.dagger.steps import IMAGE, Bench, shell


async def test_every_query_of_a_full_step_is_valid(
    bench: Bench, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"x")
    spec = (
        shell("cat; mkdir d; echo 1 >f", f"oci:{archive}")
        .stdin("text")
        .workdir("/tmp/w")
        .env(A="b")
        .mount("/in", tmp_path / "in")
        .mount("/a", archive)
        .cache("/c", "n", sharing="locked")
        .output("d", "d")
        .output("f", "f")
        .service("db", container(IMAGE).exec("true").exec("sleep", "1000"))
    )
    await bench.run(spec)
    await bench.run(shell("true").cacheable())
    assert len(engine.queries) > 8
    for query in engine.queries:
        assert validate(schema(), parse(query)) == [], query


def test_the_derived_schema_is_one_and_has_what_steps_need() -> None:
    assert validate_schema(schema()) == []
    assert len(schema().type_map) > 150
    container_ = schema().type_map["Container"]
    assert isinstance(container_, GraphQLObjectType)
    fields = container_.fields
    assert {"args", "stdin", "expect", "insecureRootCapabilities"} <= set(fields["withExec"].args)
    assert str(fields["withExec"].args["args"].type) == "[String!]!"
    assert str(fields["sync"].type) == "ID!"
    assert "implements Node" in sdl()


@pytest.mark.parametrize(
    "query",
    [
        "{ container { nothing } }",
        '{ container { from(adress: "x") { sync } } }',
        "{ container { withExec { sync } } }",
    ],
)
def test_a_query_that_an_engine_would_refuse_is_caught(query: str) -> None:
    assert validate(schema(), parse(query))
