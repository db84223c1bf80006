"""The fresh ledger: delete SG_LEDGER with all it holds, create it and the two consumers anew."""

import msgspec
from nats.aio.client import Client

from benchmarks.bare import wire

INTAKE = "intake"
LANE = "lane"

_LEDGER = {
    "name": wire.STREAM,
    "subjects": ["sg.task.>"],
    "storage": "file",
    "retention": "limits",
    "discard": "new",
    "max_bytes": 4 << 30,
    "allow_direct": True,
    "num_replicas": 1,
    "republish": {"src": "sg.task.>", "dest": "sg.live.>"},
}
_FILTERS = {INTAKE: "sg.task.*.*.*.submitted", LANE: "sg.task.echo.*.*.dispatched.pool.normal"}


async def prepare(url: str) -> None:
    """Leave an empty ledger and its consumers at `url`."""
    client = Client()
    await client.connect(url, allow_reconnect=False)
    try:
        await _ask(client, f"STREAM.DELETE.{wire.STREAM}", {})
        await _ask(client, f"STREAM.CREATE.{wire.STREAM}", _LEDGER)
        for name, subjects in _FILTERS.items():
            config = {"durable_name": name, "filter_subject": subjects, "ack_policy": "explicit"}
            config |= {"ack_wait": 30_000_000_000, "max_ack_pending": 10_000}
            request = {"stream_name": wire.STREAM, "config": config}
            await _ask(client, f"CONSUMER.DURABLE.CREATE.{wire.STREAM}.{name}", request)
    finally:
        await client.close()


async def _ask(client: Client, verb: str, request: object) -> None:
    reply = await client.request(f"$JS.API.{verb}", msgspec.json.encode(request), timeout=10)
    error = wire.decode_ack(reply.data).error
    if error is not None and error["code"] != 404:  # 404: there was nothing to delete
        raise ConnectionError(f"{verb}: {error}")
