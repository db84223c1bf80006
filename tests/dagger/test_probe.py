"""Signs of life: which answers are one, and what is ended to its end in spite of a cancel."""

from __future__ import annotations

import asyncio

import pytest

from switchgear.steps.executors.dagger.link import gives_version, probe
from switchgear.steps.executors.dagger.session import to_its_end
from switchgear.steps.spec import container
from tests.dagger.conftest import MakeBench
from tests.dagger.engine import Engine, Fault
from tests.dagger.steps import IMAGE, Bench, shell

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WELL = b'{"data":{"version":"v0.21.8"}}'
PLAIN = HEAD + b"Content-Length: 30\r\n\r\n" + WELL
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1e\r\n" + WELL + b"\r\n0\r\n\r\n"
CLOSING = b'{"data":null,"errors":[{"message":"session is closing"}]}'


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_an_answer_with_a_version_is_a_sign_of_life_as_soon_as_it_is_there(answer: bytes) -> None:
    end = answer.index(WELL) + len(WELL)
    for seen in range(end):
        assert gives_version(answer[:seen]) is None
    assert gives_version(answer[:end])
    assert gives_version(answer)


@pytest.mark.parametrize(
    "body",
    [CLOSING, b'{"data":{"version":null}}', b'{"data":{"version":"v1"},"errors":[{}]}', b"{}"],
)
def test_an_answer_that_tells_of_errors_is_none(body: bytes) -> None:
    """They come with the same status."""
    assert gives_version(HEAD + b"\r\n" + body) is False


@pytest.mark.parametrize("head", [b"HTTP/1.1 502 Bad Gateway\r\n", b"HTTP/1.1 401 X\r\n", b"x\n"])
def test_another_status_is_none_whatever_it_says(head: bytes) -> None:
    assert gives_version(head + b"\r\n" + WELL) is False


@pytest.mark.parametrize("body", [CLOSING, b"<html>", b"", b"{" * 9000])
async def test_an_engine_that_answers_with_errors_or_nonsense_is_unwell(
    bench: Bench, engine: Engine, body: bytes
) -> None:
    port, token = await engine.provided()
    assert await probe(port, token, 20)
    assert not await probe(port, "wrong", 20)
    engine.sign = body
    assert not await probe(port, token, 0.5)
    engine.sign = WELL
    assert (await bench.executor.health()).ok


async def test_a_session_whose_engine_answers_with_errors_after_a_rest_is_replaced(
    make_bench: MakeBench, engine: Engine
) -> None:
    bench = make_bench()
    await bench.run(shell("true"))
    engine.sign = CLOSING
    assert (await bench.run(shell("echo well"))).stdout == "well\n"
    assert engine.opened == 2


async def test_what_is_to_come_to_its_end_does_so_however_often_it_is_cancelled() -> None:
    begun, end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await end.wait()
        ended.set()

    ending = asyncio.ensure_future(to_its_end(work()))
    await begun.wait()
    for _ in range(3):
        ending.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not ending.done()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert ended.is_set()


async def test_what_goes_wrong_on_the_way_to_its_end_is_raised() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await to_its_end(work())


async def test_services_of_a_cancelled_step_that_cannot_be_stopped_end_with_their_session(
    bench: Bench, engine: Engine
) -> None:
    spec = shell("sleep 1000").service("db", container(IMAGE).exec("sleep", "1000"))
    engine.faults.append(Fault("answer", contains="stop", status=500, body=b""))
    step = bench.begin(spec)
    await engine.running(2)
    step.cancel()
    await asyncio.wait([step])
    assert bench.executor.links.current is None
    assert (await bench.run(shell("echo well"))).stdout == "well\n"
    assert engine.opened == 2
