"""Records are named tuples, and are read from JSON with each field of its type."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pcocc_runtime.documents.record import Record, parse_record
from pcocc_runtime.documents.vm import VmFacts, decode_vm, encode_vm


class Sample(Record):
    """A record with a method and defaults."""

    name: str
    count: int = 3
    more: dict[str, str] = {}

    def twice(self) -> int:
        """Return a number."""
        return 2 * self.count


def test_a_record_is_a_named_tuple() -> None:
    one = Sample("a")
    assert one == ("a", 3, {}) and one._replace(count=4).twice() == 8
    assert repr(one) == "Sample(name='a', count=3, more={})" and Sample.__doc__ == "A record with a method and defaults."
    assert Sample.__module__ == __name__ and pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.count = 4  # type: ignore[misc]
    for wrong in ([], ["a", 1, {}, 2]):
        with pytest.raises(TypeError):
            Sample(*wrong)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (None, "it is not a mapping"),
        ([], "it is not a mapping"),
        ({}, "name is missing"),
        ({"name": 1}, "name is not of the type str"),
        ({"name": "a", "count": True}, "count is not of the type int"),
        ({"name": "a", "more": {"b": 1}}, "more is not of the type dict[str, str]"),
    ],
)
def test_what_is_no_record_is_said(tree: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_record(Sample, tree)
    assert str(error.value) == said


def test_what_is_unknown_is_ignored() -> None:
    assert parse_record(Sample, {"name": "a", "newer": 1}) == Sample("a")


def test_what_a_launcher_tells_its_keeper_arrives() -> None:
    first = (1, 0, "n1", 5, 3, None, 4, "", "u", 60, "/d", "tcg", "", False)
    facts = VmFacts(*first, {"disk0": "/x"}, [1], [], 0, "", "", "/c", 1024, {"a": "9p"}, logs=["/l"])
    assert decode_vm(encode_vm(facts)) == facts
    assert decode_vm(encode_vm(facts._replace(probe=7, mounts={}, logs=[]))).probe == 7
