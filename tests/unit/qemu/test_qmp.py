"""Lines of JSON out of bytes that arrive in any pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.qemu.qmp import Lines, Messages, TooLong, Unreadable, parse_message, render_command

LONGEST = 40
JSON = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.lists(st.booleans(), max_size=2), max_size=2)
GOOD = JSON.map(lambda tree: json.dumps(tree).encode())
LINES = st.lists(GOOD | st.binary(max_size=2 * LONGEST).map(lambda line: line.replace(b"\n", b"")), max_size=8)


def split(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def kind(found: object) -> object:
    return type(found) if isinstance(found, Unreadable) else found


@given(LINES, st.lists(st.integers(0, 1000), max_size=20), st.binary(max_size=2 * LONGEST))
def test_any_split_gives_the_same_messages(lines: list[bytes], places: list[int], rest: bytes) -> None:
    data = b"".join(line + b"\n" for line in lines) + rest.replace(b"\n", b"")
    whole, pieces = Messages(LONGEST), Messages(LONGEST)
    expected = list(map(kind, whole.feed(data)))
    assert [kind(one) for piece in split(data, places) for one in pieces.feed(piece)] == expected
    read = [TooLong if len(line) > LONGEST else kind(parse_message(line)) for line in lines]
    assert expected == read + [TooLong] * (len(rest.replace(b"\n", b"")) > LONGEST)


@given(LINES, st.lists(st.integers(0, 1000), max_size=20))
def test_no_more_is_kept_than_a_line_may_have(lines: list[bytes], places: list[int]) -> None:
    reader, data = Lines(LONGEST), b"".join(line + b"\n" for line in lines)
    found = []
    for piece in split(data, places):
        found += reader.feed(piece)
        assert len(reader._rest) <= LONGEST
    assert found == [line if len(line) <= LONGEST else None for line in lines] and reader.take_rest() == b""


def test_a_line_that_never_ends_is_told_once_and_as_soon_as_it_is_too_long() -> None:
    reader = Messages(LONGEST)
    found = [one for _ in range(10_000) for one in reader.feed(b"x" * 10)]
    assert [type(one) for one in found] == [TooLong]
    assert reader.feed(b'\n{"a": 1}\n') == [{"a": 1}], "what comes after it is read"


def test_what_has_not_ended_can_be_taken_at_the_end() -> None:
    reader = Lines()
    assert reader.feed(b"one\ntw") == [b"one"] and reader.take_rest() == b"tw" and reader.take_rest() == b""


@pytest.mark.parametrize(
    "line", [b"", b" ", b"x", b"3", b"[]", b'"a"', b"null", b'{"a": 1', b"\xff{}", b"[" * 100_000, b"1" * 5000]
)
def test_what_is_no_message_is_said(line: bytes) -> None:
    found = parse_message(line)
    assert isinstance(found, Unreadable) and str(found).startswith("a line that is not ")


def test_a_monitors_line_ends_are_no_part_of_a_message() -> None:
    assert Messages().feed(b'{"return": {}}\r\n') == [{"return": {}}]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (render_command("quit"), b'{"execute": "quit"}\n'),
        (render_command("query-block", None, "save-look"), b'{"execute": "query-block", "id": "save-look"}\n'),
        (render_command("x", {}), b'{"execute": "x", "arguments": {}}\n'),
        (render_command("x", {"a-b": [1]}, "i"), b'{"execute": "x", "id": "i", "arguments": {"a-b": [1]}}\n'),
    ],
)
def test_a_command_is_a_line(line: bytes, expected: bytes) -> None:
    assert line == expected
