"""The report of `pcocc node check`: what a node sends to who asks all of them, and what `--json` shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from pcocc_runtime.errors import one_line
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding, failed


@dataclass(frozen=True, slots=True)
class CheckedPoint:
    """A point's name, and what was found."""

    name: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node's points in order, when it was looked at (seconds since 1970), and what nodes must agree on."""

    node: str
    when: int
    same: Mapping[str, str]
    points: tuple[CheckedPoint, ...]

    @property
    def failures(self) -> int:
        """Return how many failures there are."""
        return sum(failed(point.findings) for point in self.points)


@dataclass(frozen=True, slots=True)
class ManyReports:
    """The reports of many nodes, the nodes that did not answer, and why, and what is not the same everywhere."""

    reports: Sequence[NodeReport]
    silent: Mapping[str, str]
    unequal: Sequence[Finding]

    @property
    def is_well(self) -> bool:
        """Tell whether nothing has failed on any node."""
        return not self.silent and not failed(self.unequal) and not any(one.failures for one in self.reports)


def encode_report(report: NodeReport) -> str:
    """Return a report as JSON."""
    return json.dumps(_tree(report), indent=2) + "\n"


def encode_reports(many: ManyReports) -> str:
    """Return the same of many nodes."""
    tree = {
        "ok": many.is_well, "nodes": [_tree(one) for one in many.reports], "silent": dict(many.silent),
        "findings": [asdict(one) for one in many.unequal],
    }  # fmt: skip
    return json.dumps(tree, indent=2) + "\n"


def _tree(report: NodeReport) -> dict[str, object]:
    rows = [{"point": point.name, **asdict(one)} for point in report.points for one in point.findings]
    return {
        "node": report.node, "when": report.when, "ok": not report.failures, "versions": dict(report.same),
        "findings": rows,
    }


def decode_report(text: str) -> NodeReport:
    """Return what `encode_report` has encoded, each text in one line; ValueError when it is nothing of that kind."""
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
        return NodeReport(
            one_line(str(tree["node"])), int(tree["when"]), same,
            tuple(CheckedPoint(name, tuple(one)) for name, one in points.items()),
        )
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not the report of a node: {error}") from None
