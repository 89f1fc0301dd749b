"""What the check of one node, or of many, has come to, as a text, and what differs between them."""

from __future__ import annotations

from collections.abc import Sequence

from pcocc_runtime.documents.node_report import CheckedPoint, ManyReports, NodeReport
from pcocc_runtime.findings import FAILED, WELL, Finding, render_lines
from pcocc_runtime.tables import count

_MOST = 8  # nodes that a sentence names


def render_report(report: NodeReport) -> str:
    """Return a line for each finding, and a last one that sums up."""
    lines = [line for point in report.points for line in render_lines(_named(point))]
    many = report.failures
    return "\n".join([*lines, f"{report.node}: {count(many, 'failure') if many else 'no failure'}"]) + "\n"


def _named(point: CheckedPoint) -> list[Finding]:
    return [Finding(one.level, f"{point.name}: {one.text}", one.hint) for one in point.findings]


def compare(reports: Sequence[NodeReport]) -> list[Finding]:
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


def render_reports(many: ManyReports) -> str:
    """Return what is wrong on each of many nodes, what differs between them, and a last line that sums up."""
    lines = []
    for report in many.reports:
        wrong = [one for point in report.points for one in _named(point) if one.level != WELL]
        lines += render_lines(Finding(one.level, f"{report.node}: {one.text}", one.hint) for one in wrong)
    lines += render_lines(
        Finding(FAILED, f"{node}: {why}", "run 'pcocc node check' there")
        for node, why in sorted(many.silent.items())
    )
    lines += render_lines(many.unequal)
    bad = sum(report.failures > 0 for report in many.reports) + len(many.silent)
    total = count(len(many.reports) + len(many.silent), "node")
    return (
        "\n".join([*lines, f"{total}: {count(bad, 'node') + ' with failures' if bad else 'no failure'}"])
        + "\n"
    )
