"""What the check of one node has come to, what it sends to who asks many, and how both are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pcocc_runtime.errors import one_line
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding, failed, render_lines
from pcocc_runtime.tables import count

_MOST = 8  # nodes that a sentence names


@dataclass(frozen=True, slots=True)
class Point:
    """A point's name, and what was found."""

    name: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A node's points in order, when it was looked at (seconds since 1970), and what nodes must agree on."""

    node: str
    when: int
    same: Mapping[str, str]
    points: tuple[Point, ...]

    @property
    def failures(self) -> int:
        """Return how many failures there are."""
        return sum(failed(point.findings) for point in self.points)


def plan_report(report: Report) -> dict[str, Any]:
    """Return a report as JSON shows it."""
    rows = [{"point": point.name, **asdict(one)} for point in report.points for one in point.findings]
    return {
        "node": report.node, "when": report.when, "ok": not report.failures, "versions": dict(report.same),
        "findings": rows,
    }


def parse_report(text: str) -> Report:
    """Return what `plan_report` made, from JSON; ValueError when the text is nothing of that kind."""
    try:
        tree = json.loads(text)
        points: dict[str, list[Finding]] = {}
        for row in tree["findings"]:
            hint = row["hint"] and one_line(str(row["hint"]))
            if row["level"] not in (WELL, NOTE, FAILED):
                raise ValueError("it has an unknown level")
            points.setdefault(one_line(str(row["point"])), []).append(
                Finding(row["level"], one_line(str(row["text"])), hint)
            )
        same = {one_line(str(name)): one_line(str(value)) for name, value in tree["versions"].items()}
        return Report(
            one_line(str(tree["node"])), int(tree["when"]), same,
            tuple(Point(name, tuple(one)) for name, one in points.items()),
        )
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not the report of a node: {error}") from None


def render_report(report: Report) -> str:
    """Return a line for each finding, and a last one that sums up."""
    lines = [line for point in report.points for line in render_lines(_named(point))]
    many = report.failures
    return "\n".join([*lines, f"{report.node}: {count(many, 'failure') if many else 'no failure'}"]) + "\n"


def _named(point: Point) -> list[Finding]:
    return [Finding(one.level, f"{point.name}: {one.text}", one.hint) for one in point.findings]


def compare(reports: Sequence[Report]) -> list[Finding]:
    """Return a failure for each thing that is not the same on all nodes, and one line when all are."""
    found = []
    for name in dict.fromkeys(name for report in reports for name in report.same):
        nodes: dict[str, list[str]] = {}
        for report in reports:
            nodes.setdefault(report.same.get(name, "?"), []).append(report.node)
        if len(nodes) > 1:
            common_first = sorted(nodes.items(), key=lambda one: -len(one[1]))
            told = ", ".join(f"{value} on {_some(names)}" for value, names in common_first)
            hint = f"install the same {name} on all nodes, then restart slurmd"
            if name.startswith("/"):
                hint = "copy one /etc/pcocc to all nodes"
            found.append(Finding(FAILED, f"{name} is not the same everywhere: {told}", hint))
    if reports and not found:
        same = ", ".join(reports[0].same)
        return [Finding(WELL, f"{same} are the same on {count(len(reports), 'node')}")]
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")


def plan_reports(reports: Sequence[Report], silent: Mapping[str, str]) -> dict[str, Any]:
    """Return the reports of many nodes as JSON shows them; `silent` has the nodes that did not answer, and why."""
    unequal = compare(reports)
    ok = not silent and not failed(unequal) and not any(report.failures for report in reports)
    return {
        "ok": ok, "nodes": [plan_report(report) for report in reports], "silent": dict(silent),
        "findings": [asdict(one) for one in unequal],
    }  # fmt: skip


def render_reports(reports: Sequence[Report], silent: Mapping[str, str]) -> str:
    """Return what is wrong on each of many nodes, what differs between them, and a last line that sums up."""
    lines = []
    for report in reports:
        wrong = [one for point in report.points for one in _named(point) if one.level != WELL]
        lines += render_lines(Finding(one.level, f"{report.node}: {one.text}", one.hint) for one in wrong)
    lines += render_lines(
        Finding(FAILED, f"{node}: {why}", "run 'pcocc node check' there")
        for node, why in sorted(silent.items())
    )
    lines += render_lines(compare(reports))
    bad = sum(report.failures > 0 for report in reports) + len(silent)
    total = count(len(reports) + len(silent), "node")
    return (
        "\n".join([*lines, f"{total}: {count(bad, 'node') + ' with failures' if bad else 'no failure'}"])
        + "\n"
    )
