"""What launchers, keepers, starters, steps and savers write for each other is read as it was written; damage is told in
one sentence.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.documents import save
from pcocc_runtime.documents.batch_environment import (
    BatchEnvironment,
    decode_batch_environment,
    encode_batch_environment,
)
from pcocc_runtime.documents.members import Members, decode_members, encode_members
from pcocc_runtime.documents.vm import VmFacts, decode_vm, encode_vm
from pcocc_runtime.documents.vm_events import (
    PREFIX,
    DiskError,
    Ended,
    Leaving,
    Ready,
    Silent,
    Started,
    StillOn,
    decode_event,
    encode_event,
)
from pcocc_runtime.documents.vm_state import VmState, decode_state, encode_state
from pcocc_runtime.qemu.qmp import Unreadable, parse_message

FACTS = VmFacts(
    12, 3, "n1", 99, 5, None, 7, "", "alice", 300, "/run/pcocc/12/vm3", "kvm", "it works", True, {"disk0": "/d"},
    [2, 3], [1], 20, "/a", "/a.qemu",
    "/s/vm3.console.log", 1 << 20,
)  # fmt: skip
MEMBERS = Members(
    (("10.200.0.0/16", ((0, 1), (3, 3))),), ((0, 22, 60222),), ((2, "alice"), (2, "worker")), 4,
    (("n1", (0, 1)), ("n2", (2, 3))), 300
)
EVENTS: dict[str, Any] = {
    '{"event":"started","accel":"tcg","why":"w","kvm_expected":true,"vm":"vm0","node":"n1"}': Started(
        "tcg", "w", True, "vm0", "n1"
    ),
    '{"event":"ready","seconds":3.25,"vm":"vm0","node":"n1"}': Ready(3.25, "vm0", "n1"),
    '{"event":"silent","seconds":300,"console":["a","b"],"vm":"vm0","node":"n1"}': Silent(300, ["a", "b"], "vm0", "n1"),
    '{"event":"disk-error","reason":"r","disk":"d","vm":"vm0","node":"n1"}': DiskError("r", "d", "vm0", "n1"),
    '{"event":"still-on","vm":"vm0","node":"n1"}': StillOn("vm0", "n1"),
    '{"event":"leaving","vm":"vm0","node":"n1"}': Leaving("vm0", "n1"),
    '{"event":"ended","reason":"r","text":"t","asked":false,"vm":"vm0","node":"n1"}': Ended(
        "r", "t", False, "vm0", "n1"
    ),
}
REQUESTS: dict[bytes, Any] = {
    b'{"execute": "query-block", "arguments": {}}\n': save.QemuCommand("query-block"),
    b'{"execute": "x", "arguments": {"a": 1}}\n': save.QemuCommand("x", {"a": 1}),
    b'{"frozen": true}\n': save.Frozen(True),
    b'{"layer": "/s/x"}\n': save.ScratchFile("/s/x"),
    b'{"drive": ["/machine/x", "disk1"]}\n': save.DeviceNode("/machine/x", "disk1"),
}
ANSWERS: dict[bytes, Any] = {
    b'{"go": true}\n': save.Go(),
    b'{"return": {}, "id": "save"}\n': save.Reply({"return": {}, "id": "save"}),
    b'{"error": {"desc": "not a command"}}\n': save.NOT_A_COMMAND,
    b'{"merged": true}\n': save.Outcome(None),
    b'{"merged": false, "error": "No space left"}\n': save.Outcome("No space left"),
}


def ensure_refused(decode: Any, good: str, changes: dict[str, Any]) -> None:
    """Check that a document is refused in one sentence when it is cut, no mapping, or has another value somewhere."""
    texts = [
        good[:-2], "", "3", "[]",
        "[" * 100_000,
        *(json.dumps({**json.loads(good), key: value}) for key, value in changes.items()),
    ]
    for key in changes:
        texts.append(json.dumps({name: value for name, value in json.loads(good).items() if name != key}))
    for text in texts:
        with pytest.raises(ValueError) as error:
            decode(text)
        assert "\n" not in str(error.value) and " cannot be read: " in str(error.value), error.value


def test_the_keeper_reads_what_the_launcher_tells_it() -> None:
    text = encode_vm(FACTS)
    assert decode_vm(text) == FACTS and text.startswith('{"job": 12, "rank": 3, ')
    ensure_refused(decode_vm, text, {"job": "12", "probe": "5", "disks": {"disk0": 1}, "grace": None, "address": 3})


def test_a_state_is_read_as_it_was_written() -> None:
    for state in (VmState("up", 3.2), VmState("silent", 300), VmState("ended", reason="killed", asked=True), VmState("off")):
        assert decode_state(encode_state(state)) == state
    text = encode_state(VmState("up", 1))
    ensure_refused(decode_state, text, {"state": "booting"})
    with pytest.raises(ValueError, match="seconds is not of the type float"):
        decode_state('{"state": "up", "seconds": "3"}')


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_members_are_read_as_they_were_written(counts: list[int]) -> None:
    users = tuple((count, f"user{number}") for number, count in enumerate(counts))
    members = decode_members(encode_members(MEMBERS._replace(users=users, vms=sum(counts))).decode())
    assert members.users == users and members.networks == MEMBERS.networks and members.nodes == MEMBERS.nodes
    names = [f"user{number}" for number, count in enumerate(counts) for _ in range(count)]
    assert [members.find_user(rank) for rank in range(sum(counts) + 1)] == [*names, None]
    assert [members.find_node(rank) for rank in range(5)] == ["n1", "n1", "n2", "n2", None]


def test_damaged_members_are_one_sentence() -> None:
    wrong: list[Any] = [
        {"networks": one} for one in (None, 3, [["10.0.0.0/8"]], [["10.0.0/8", []]], [["10.0.0.256/8", []]], [[3, []]])
    ]
    wrong += [
        {"ports": [[1, 2]]}, {"ports": [[1, 2, "3"]]}, {"users": [["x", 2]]}, {"vms": "4"}, {"nodes": [["n1", 3]]},
        {"nodes": [["n1", ["0"]]]},
    ]
    for change in [*wrong, {"boot_timeout": None}]:
        ensure_refused(decode_members, encode_members(MEMBERS).decode(), change)


@pytest.mark.parametrize("line", EVENTS)
def test_an_event_is_a_line_and_is_read_as_it_was_written(line: str) -> None:
    event = EVENTS[line]
    assert encode_event(event) == f"{PREFIX}{line}\n"
    found = decode_event(PREFIX + line)
    assert found == event and type(found) is type(event)


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"event": 3}', '{"event": "ready", "vm": "vm0", "node": "n1"}', "[" * 100_000]
)
def test_a_damaged_event_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="a VM's keeper sent what cannot be read") as error:
        decode_event(PREFIX + text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_an_event_of_a_newer_keeper_is_none_that_is_known() -> None:
    assert decode_event(PREFIX + '{"event":"hiccup","vm":"vm0"}') is None


@pytest.mark.parametrize("line", REQUESTS)
def test_a_savers_words_are_lines_and_are_read_as_they_were_said(line: bytes) -> None:
    request = REQUESTS[line]
    assert save.encode_request(request) == line
    found = save.decode_request(parse_message(line))
    assert found == request and type(found) is type(request)


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b"3", b"{}", b'{"execute": 3}', b'{"execute": "x", "arguments": []}', b'{"frozen": 1}', b'{"layer": null}',
     b'{"drive": 3}',
     b'{"drive": ["a"]}', b'{"drive": ["a", "b", "c"]}', b'{"drive": ["a", 3]}', b'{"drive": "ab"}'],
)  # fmt: skip
def test_what_no_saver_says_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        save.decode_request(parse_message(line))


@pytest.mark.parametrize("line", ANSWERS)
def test_a_keepers_answers_are_lines_and_are_read_as_they_were_given(line: bytes) -> None:
    answer = ANSWERS[line]
    assert save.encode_answer(answer) == line
    found = save.decode_answer(parse_message(line))
    assert found == answer and type(found) is type(answer)


@pytest.mark.parametrize("message", [{}, {"event": "STOP"}, Unreadable("a line that is not JSON")])
def test_what_no_keeper_answers_is_refused(message: Any) -> None:
    with pytest.raises(ValueError, match="a line that is no"):
        save.decode_answer(message)


def test_why_a_command_failed_is_known_whatever_its_form() -> None:
    assert [
        save.Reply(one).error for one in ({"return": {}}, {"error": {"desc": "no"}}, {"error": {}}, {"error": "x"})
    ] == [None, "no", "None", "x"]


def test_a_batch_scripts_variables_come_as_they_are() -> None:
    found = BatchEnvironment({"SLURM_JOB_ID": "7", "PCOCC_X": "\udcff é\n"}, ["SLURM_Y"])
    text = encode_batch_environment(found)
    assert text.isascii() and decode_batch_environment(text) == found
    for damaged in ("", "[]", "{}", "[" * 9000, text.replace('"7"', "7"), text.replace('["SLURM_Y"]', "[1]")):
        with pytest.raises(ValueError, match="the variables of the batch script cannot be read: "):
            decode_batch_environment(damaged)
