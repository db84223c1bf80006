"""The programs: a client keeps tasks in flight, a coordinator dispatches, an agent echoes."""

import asyncio
import os
from functools import partial
from itertools import count
from time import perf_counter, time_ns

import msgspec

from benchmarks.bare import stream, wire
from benchmarks.bare.link import Handler, Link, Variant
from benchmarks.bare.public import link_of
from benchmarks.window import Window

_BATCH = 1000
"""Messages that a role asks for ahead; here is no neighbour to leave tasks to."""


class Relay(msgspec.Struct, frozen=True):
    """A role that answers each event of a consumer with another event on the same task."""

    consumer: str
    event: bytes
    answer: bytes
    size: int
    """Of the answer's body, bytes."""

    async def serve(self, url: str, variant: Variant) -> None:
        """Relay until killed, or the connection is closed."""
        link = link_of(variant)
        await link.open(url)
        await link.pull(self.consumer, _BATCH, self._handler(link))
        await link.ended

    def _handler(self, link: Link) -> Handler:
        consumer, event, answer, pad = (
            self.consumer,
            self.event,
            self.answer,
            wire.padding(self.size),
        )

        def on_event(subject: bytes, reply: bytes, data: bytes) -> None:
            seen = wire.decode(data)
            scope = subject.removesuffix(event)
            sequence = int(reply.split(b".", 6)[5])  # $JS.ACK.stream.consumer.deliveries.sequence…
            entry = wire.Entry(
                task=seen.task,
                entry=f"{seen.task}.{sequence}",
                writer=consumer,
                time=time_ns(),
                prev=sequence,
                attempt=1,
                input=seen.input,
                pad=pad,
            )
            link.append(scope + answer, scope + b">", sequence, wire.encode(entry), reply)

        return on_event


class Recorder(msgspec.Struct, frozen=True):
    """An agent that appends checkpoints before the result, each when the one before is stored."""

    checkpoints: int
    sizes: wire.Sizes

    async def serve(self, url: str, variant: Variant) -> None:
        """Work until killed, or the connection is closed."""
        link = link_of(variant)
        await link.open(url)
        await link.pull(stream.LANE, _BATCH, self._handler(link))
        await link.ended

    def _handler(self, link: Link) -> Handler:
        pads = wire.padding(self.sizes.checkpoint), wire.padding(self.sizes.completed)

        def on_event(subject: bytes, reply: bytes, data: bytes) -> None:
            seen = wire.decode(data)
            scope = subject.removesuffix(wire.DISPATCHED)

            def go_on(last: int, left: int) -> None:
                entry = wire.Entry(
                    task=seen.task,
                    entry=f"{seen.task}.{last}",
                    writer=stream.LANE,
                    time=time_ns(),
                    prev=last,
                    attempt=1,
                    input=seen.input,
                    pad=pads[not left],
                )
                body = wire.encode(entry)
                if left:
                    then = partial(go_on, left=left - 1)
                    link.append_then(scope + wire.CHECKPOINT, scope + b">", last, body, then)
                else:
                    link.append(scope + wire.COMPLETED, scope + b">", last, body, reply)

            go_on(int(reply.split(b".", 6)[5]), self.checkpoints)

        return on_event


def coordinator(sizes: wire.Sizes) -> Relay:
    """Turn each `submitted` into a `dispatched`."""
    return Relay(stream.INTAKE, wire.SUBMITTED, wire.DISPATCHED, sizes.dispatched)


def agent(sizes: wire.Sizes, checkpoints: int = 0) -> Relay | Recorder:
    """Turn each `dispatched` into a `completed`, after so many checkpoints."""
    if checkpoints:
        return Recorder(checkpoints, sizes)
    return Relay(stream.LANE, wire.DISPATCHED, wire.COMPLETED, sizes.completed)


class Submitter:
    """A client that submits a task whenever one completes, until the window closes."""

    def __init__(self, link: Link, sizes: wire.Sizes, window: Window) -> None:
        self._link = link
        self._window = window
        self._pad = wire.padding(sizes.submitted)
        self._run = os.urandom(8).hex()
        self._numbers = count(1)
        self._started: dict[bytes, float] = {}
        self._done = asyncio.get_running_loop().create_future()

    async def drive(self, *, in_flight: int) -> None:
        """Return when the window has closed, with `in_flight` open all the time."""
        await self._link.listen("sg.live.*.bench.*.completed", self._on_live)
        for _ in range(in_flight):
            self._submit()
        ended = self._link.ended
        await asyncio.wait({self._done, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
            raise ConnectionError("the broker closed the connection")

    def _submit(self) -> None:
        task = f"{self._run}{next(self._numbers):016d}"
        scope = f"sg.task.echo.bench.{task}.".encode()
        entry = wire.Entry(
            task=task,
            entry=f"{task}.0",
            writer="client",
            time=time_ns(),
            prev=0,
            attempt=0,
            input=wire.INPUT,
            pad=self._pad,
        )
        self._started[task.encode()] = perf_counter()
        self._link.append(scope + wire.SUBMITTED, scope + b">", 0, wire.encode(entry), b"")

    def _on_live(self, subject: bytes, _reply: bytes, _data: bytes) -> None:
        started = self._started.pop(subject.split(b".")[4], None)
        if started is None:
            return  # a leftover of the window before
        if self._window.ended(started):
            self._submit()
        elif not self._done.done():
            self._done.set_result(None)


class Burst(Submitter):
    """A client that runs so many tasks, with at most `in_flight` open."""

    def __init__(self, link: Link, sizes: wire.Sizes, tasks: int) -> None:
        super().__init__(link, sizes, Window(0, 0, {}))
        self._unsubmitted = self._unended = tasks

    async def seconds(self, *, in_flight: int) -> float:
        """Return what all of them took together."""
        began = perf_counter()
        await self.drive(in_flight=in_flight)
        return perf_counter() - began

    def _submit(self) -> None:
        if self._unsubmitted:
            self._unsubmitted -= 1
            super()._submit()

    def _on_live(self, subject: bytes, _reply: bytes, _data: bytes) -> None:
        if self._started.pop(subject.split(b".")[4], None) is None:
            return
        self._unended -= 1
        self._submit()
        if not self._unended and not self._done.done():
            self._done.set_result(None)
