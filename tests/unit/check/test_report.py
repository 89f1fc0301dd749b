"""A node's report: as it is sent, compared with others, and shown."""

import json
from dataclasses import replace

import pytest

from pcocc_runtime.check.points import ROWS
from pcocc_runtime.check.report import compare, render_report, render_reports
from pcocc_runtime.documents.node_report import (
    CheckedPoint,
    ManyReports,
    NodeReport,
    decode_report,
    encode_report,
    encode_reports,
)
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding

SAME = {"pcocc": "0.1.0", "Slurm": "24.11.5", "QEMU": "10.0.2", "/etc/pcocc": "abc"}
GOOD = NodeReport(
    "n1", 1000, SAME,
    (CheckedPoint("tun", (Finding(WELL, "it opens"),)), CheckedPoint("clock", (Finding(NOTE, "nobody keeps it", "keep it"),))),
)
BAD = NodeReport("n2", 1000, SAME, (CheckedPoint("tun", (Finding(FAILED, "it is missing", "modprobe tun"),)),))
TREE = json.loads(encode_report(GOOD))


def many(reports: list[NodeReport], silent: dict[str, str]) -> ManyReports:
    return ManyReports(reports, silent, compare(reports))


@pytest.mark.parametrize("report", [GOOD, BAD])
def test_a_report_comes_as_it_was_sent(report: NodeReport) -> None:
    assert decode_report(encode_report(report)) == report


@pytest.mark.parametrize("text",
                         ["", "[]", "{}", "null", "[" * 9000, json.dumps({**TREE, "findings": [{"level": "great"}]}),
                                  json.dumps({**TREE, "versions": 3})])  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_report(text)


def test_what_a_node_sends_stays_one_line_of_a_terminal() -> None:
    text = encode_report(replace(BAD, node="n\x1b[2J")).replace("it is missing", "two\\nlines")
    shown = render_report(decode_report(text))
    assert "\x1b" not in shown and "tun: two lines\n" in shown


def test_one_node_is_shown_in_full() -> None:
    assert render_report(GOOD) == "ok      tun: it opens\nnote    clock: nobody keeps it\n        hint: keep it\nn1: no failure\n"
    assert render_report(BAD).endswith("FAILED  tun: it is missing\n        hint: modprobe tun\nn2: 1 failure\n")


def test_of_many_nodes_what_is_wrong_and_what_differs_is_shown() -> None:
    other = replace(BAD, same={**SAME, "QEMU": "7.2.22", "/etc/pcocc": "def"})
    lines = render_reports(many([GOOD, other], {"n3": "it is down"})).splitlines()
    assert lines == [
        "note    n1: clock: nobody keeps it", "        hint: keep it", "FAILED  n2: tun: it is missing",
        "        hint: modprobe tun", "FAILED  n3: it is down", "        hint: run 'pcocc node check' there",
        "FAILED  QEMU is not the same everywhere: 10.0.2 on n1, 7.2.22 on n2",
        "        hint: install the same QEMU on all nodes, then restart slurmd",
        "FAILED  /etc/pcocc is not the same everywhere: abc on n1, def on n2",
        "        hint: copy one /etc/pcocc to all nodes",
        "3 nodes: 2 nodes with failures",
    ]  # fmt: skip


def test_equal_nodes_are_told_in_one_line() -> None:
    [found] = compare([GOOD, replace(GOOD, node="n2")])
    assert (found.level, found.text) == (WELL, "pcocc, Slurm, QEMU, /etc/pcocc are the same on 2 nodes")
    assert compare([]) == []


def test_many_nodes_are_named_in_part() -> None:
    others = [replace(GOOD, node=f"n{number}") for number in range(2, 40)]
    [found] = compare([*others, replace(GOOD, same={**SAME, "pcocc": "0.0.9"})])
    assert "0.1.0 on n2, n3, n4, n5, n6, n7, n8, n9 and 30 more, 0.0.9 on n1" in found.text


@pytest.mark.parametrize(("reports", "silent", "ok"),
                         [([GOOD], {}, True), ([GOOD, BAD], {}, False), ([GOOD], {"n2": "down"}, False),
                                                       ([GOOD, replace(GOOD, same={})], {}, False)])  # fmt: skip
def test_all_must_be_well(reports: list[NodeReport], silent: dict[str, str], ok: bool) -> None:
    assert many(reports, silent).is_well is ok
    tree = json.loads(encode_reports(many(reports, silent)))
    assert tree["ok"] is ok and tree["silent"] == silent
    assert [decode_report(json.dumps(one)) for one in tree["nodes"]] == reports


def test_points_have_names_of_their_own() -> None:
    names = [row.name for row in ROWS]
    assert len({*names}) == len(names) > 15
