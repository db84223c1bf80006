"""Bytes to messages: what is sent arrives, and what is wrong becomes one coded error and no other."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from switchgear.contract import codec, entries, limits, queries, subjects, values
from switchgear.contract.codes import PROTOCOL_CODES
from switchgear.errors import ProtocolError
from tests.unit.contract.wire_values import JSON, STRUCTS, messages_of
from tests.unit.lifecycle.script import SCOPE, entry, subject

SUBMITTED = subjects.parse_task(subject("submitted"))
BODY = json.loads(codec.encode(entry("submitted")))


def body(**fields: Any) -> bytes:
    return json.dumps(BODY | fields).encode()


def with_raw(field: str, raw: bytes) -> bytes:
    """A submission in which this field's JSON is exactly these bytes."""
    return body(**{field: "HERE"}).replace(b'"HERE"', raw)


def code_of(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        codec.decode_entry(SUBMITTED, data)
    return caught.value.code


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_message_survives_the_wire(kind: type[msgspec.Struct]) -> None:
    """What is encoded and decoded again equals what was sent."""

    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(messages_of(kind))
    def check(message: msgspec.Struct) -> None:
        data = codec.encode(message)
        again = codec.decode(data, kind, limit=len(data))
        assert message == again

    check()


@pytest.mark.parametrize("event", entries.ENTRIES)
def test_an_entry_is_decoded_by_its_subject(event: str) -> None:
    """The subject alone says which type the body has."""
    message = entry(event)
    decoded = codec.decode_entry(subjects.parse_task(subject(event)), codec.encode(message))
    assert decoded == message
    assert type(decoded) is entries.ENTRIES[event]


DEEP = 50_000
BROKEN = {
    "a version of the future": (body(v=2), "SG1101"),
    "a version of the far future": (with_raw("v", b"9" * 300), "SG1101"),
    "an unknown version beside a field of another type": (body(v=7, input=1, id=5), "SG1101"),
    "a version that is too large to read": (with_raw("v", b"9" * 5000), "SG1102"),
    "a version that is no number": (body(v="1"), "SG1102"),
    "no version": (json.dumps({"id": "e"}).encode(), "SG1102"),
    "a field of another type": (body(writer=1), "SG1102"),
    "a field outside its limits": (body(prev=-1), "SG1102"),
    "a token with a dot": (body(id="a.b"), "SG1102"),
    "a token that is too long": (body(id="a" * 65), "SG1102"),
    "a time without a zone": (body(time="2026-01-01T00:00:00"), "SG1102"),
    "a leap second": (body(deadline="2026-01-01T00:00:60Z"), "SG1102"),
    "a duration beyond all bounds": (body(retry={"initial": "P999999999999D"}), "SG1102"),
    "a number beyond all bounds": (
        with_raw("retry", b'{"factor":1e999}'),
        "SG1102",
    ),
    "an integer of 5,000 digits": (with_raw("depth", b"9" * 5000), "SG1102"),
    "an array instead of an object": (b"[]", "SG1102"),
    "one byte more than its kind may have": (b" " * (limits.MAX_ENTRY + 1), "SG1103"),
    "bad UTF-8 in a text": (with_raw("root", b'"\xff"'), "SG1104"),
    "bad UTF-8 inside a Raw field": (with_raw("input", b'"\xc3("'), "SG1104"),
    "bad UTF-8 inside a field that is skipped": (with_raw("unknown", b'"\xed\xa0\x80"'), "SG1104"),
    "UTF-16": (body().decode().encode("utf-16"), "SG1104"),
    "nothing": (b"", "SG1105"),
    "a NUL": (b"\0", "SG1105"),
    "a byte order mark": (b"\xef\xbb\xbf" + body(), "SG1105"),
    "half a message": (body()[:-1], "SG1105"),
    "two messages": (body() + body(), "SG1105"),
    "not a number": (with_raw("input", b"NaN"), "SG1105"),
    "broken JSON inside a Raw field": (with_raw("input", b'{"a":tru}'), "SG1105"),
    "half a surrogate": (with_raw("root", b'"\\ud800"'), "SG1105"),
    "a raw line break in a skipped field": (with_raw("unknown", b'"\n"'), "SG1105"),
    "deep nesting in a Raw field": (with_raw("input", b"[" * DEEP + b"]" * DEEP), "SG1106"),
    "deep nesting in a skipped field": (
        with_raw("unknown", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        "SG1106",
    ),
    "deep nesting of an unknown version": (
        with_raw("unknown", b"[" * DEEP + b"]" * DEEP).replace(b'"v": 1', b'"v": 2'),
        "SG1102",
    ),
    "a body of another task": (body(task="t2"), "SG1108"),
    "a second name that moves it to another task": (
        body()[:-1] + b',"task":"t2"}',
        "SG1108",
    ),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_body_is_told_by_its_code(data: bytes, code: str) -> None:
    """Each fault has a code of its own, whichever exception the decoder raised for it."""
    assert code == code_of(data)


def test_every_code_of_the_protocol_has_its_test() -> None:
    """SG1107 is the subjects' (test_subjects), SG1109 that of whoever reads a blob."""
    assert {code for _, code in BROKEN.values()} | {"SG1107", "SG1109"} == set(PROTOCOL_CODES)


def test_of_a_name_that_stands_twice_the_last_one_counts() -> None:
    """As in JavaScript, Go and Python, so that readers in several languages agree."""
    doubled = body()[:-1] + b',"writer":"i2"}'
    assert codec.decode_entry(SUBMITTED, doubled).writer == "i2"


def test_the_canonical_form_does_not_depend_on_the_process() -> None:
    """Sets and dicts are sorted: a digest over them says the same after a restart (rule 5)."""
    retry = values.Retry(on=frozenset({"timeout", "auth", "bug", "step"}))
    assert codec.canonical(retry) == b'{"on":["auth","bug","step","timeout"]}'
    assert codec.canonical({"b": 1, "a": 2}) == codec.canonical({"a": 2, "b": 1})


def test_fields_of_a_later_release_are_ignored() -> None:
    """A release may add optional fields; old readers pass over them."""
    assert codec.decode_entry(SUBMITTED, body(colour="blue")) == codec.decode_entry(
        SUBMITTED, body()
    )


def test_a_query_beyond_its_own_limit_is_refused() -> None:
    """Queries are smaller than entries."""
    with pytest.raises(ProtocolError) as caught:
        codec.decode(b" " * (limits.MAX_QUERY + 1), queries.Nothing)
    assert caught.value.code == "SG1103"
    assert "object store" in caught.value.fix


def test_a_type_is_read_again_without_a_new_decoder() -> None:
    """The second message of a type gives what the first gave."""
    data = codec.encode(queries.ExplainQuery(task="t1"))
    assert codec.decode(data, queries.ExplainQuery) == codec.decode(data, queries.ExplainQuery)


_EVENTS = st.sampled_from(sorted(entries.ENTRIES))
_BYTES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from([*BODY, "retry", "hold", "x"]), JSON).map(
        lambda fields: json.dumps(BODY | fields).encode()
    )
    | st.tuples(st.integers(0, 400), st.binary(max_size=3)).map(
        lambda cut: body()[: cut[0]] + cut[1] + body()[cut[0] + len(cut[1]) :]
    )
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_EVENTS, _BYTES)
def test_no_bytes_raise_anything_but_a_protocol_error(event: str, data: bytes) -> None:
    """Arbitrary bytes, arbitrary JSON and damaged messages are read or refused, never more."""
    parts = subjects.TaskSubject("review", "alice", "t1", event)
    decoded, code = None, ""
    try:
        decoded = codec.decode_entry(parts, data)
    except ProtocolError as error:
        code = error.code
    if decoded is None:
        assert code in PROTOCOL_CODES
    else:
        assert decoded.task == SCOPE.split(".")[4]
        codec.encode(decoded)


def test_a_token_does_not_end_in_a_line_break() -> None:
    r"""A pool named `p1\n` would reach a subject and break the client's line protocol."""
    assert code_of(body(writer="i1\n")) == "SG1102"


def test_a_type_that_cannot_be_a_key_has_a_decoder_all_the_same() -> None:
    """Annotations may hold a dict, which no cache can look up."""
    kind = Annotated[int, {"unit": "s"}]
    with pytest.raises(TypeError):
        hash(kind)
    assert codec.decoder(kind).decode(b"7") == 7
