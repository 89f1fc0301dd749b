"""`pcocc ps`: what Slurm and the nodes say, as a line for each job or VM."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pcocc_runtime.documents.node_answer import Usage
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.observe import ps
from pcocc_runtime.observe.ask import Answers
from pcocc_runtime.observe.ps_text import VirtualCluster, plan_vms, render_clusters, render_json, render_vms
from pcocc_runtime.slurm.text import parse_listed
from tests.unit.observe import netjob

MARK = "2f1d8c3b9a7e6054"
# as squeue of Slurm 22.05 writes them
JOBS = f"""{MARK}|18|18|alice|main|2:19|interactive
{MARK}|30|12_3|alice|main|1-00:00:27|a name | with blanks
{MARK}|31|31|alice|main|0:01|waits
{MARK}|7|7|alice|long|5:00|
garbage
"""
STEPS = f"""{MARK}|18.1|4|n[1-2]|pcocc-vms
{MARK}|18.batch|1|n1|batch
{MARK}|18.2|4|n[1-2]|pcocc-vms
{MARK}|12_3.0|1|n1|pcocc-vms
{MARK}|7.2|2|n7|pcocc-vms
{MARK}|31.0|1|n1|sleep
{MARK}|99.0|1|n1|pcocc-vms
"""
NODES = [
    netjob.answer(1, states={0: "up", 1: "ended: its guest powered it off"}),
    netjob.answer(2, states={2: "booting"}),
]


def test_jobs_with_a_boot_step_are_listed_by_their_numbers() -> None:
    found = parse_listed(JOBS, STEPS, MARK)
    assert [(one.job, one.label, one.name, one.vms, one.nodes) for one in found] == [
        (7, "7", "", 2, "n7"), (18, "18", "interactive", 4, "n[1-2]"), (30, "12_3", "a name | with blanks", 1, "n1"),
    ]  # fmt: skip


def test_no_name_of_a_job_or_step_passes_for_anothers() -> None:
    """Slurm 22.05 takes names with line ends and terminal controls, and writes them as they are."""
    jobs = f"{MARK}|5|5|bob|main|0:01|x\n18|18|root|main|0:01|mine\nabc|abc|a|b|c|d\x1b[2J\n{JOBS}"
    steps = f"{MARK}|5.0|1|n1|pcocc-vms\n18.1|99|n9|pcocc-vms\nStepId=18.1 Tasks=99 Name=pcocc-vms\nabc.0|1|n1|pcocc-vms\n{STEPS}"
    found = {one.job: one for one in parse_listed(jobs, steps, MARK)}
    assert sorted(found) == [5, 7, 18, 30]
    assert (found[18].user, found[18].vms, found[18].nodes, found[5].name) == ("alice", 4, "n[1-2]", "x")
    [one] = parse_listed(f"{MARK}|5|5|bob|main|0:01|a\x1b[2J\rb\n", f"{MARK}|5.0|1|n1|pcocc-vms\n", MARK)
    assert one.name == "a?[2J b"
    assert parse_listed("", "", MARK) == parse_listed("\x00\n|||||||\n", f"{MARK}|\n", MARK) == ()


SQUEUE = """#!/bin/sh
env | grep -c ^SQUEUE_ >{here}/variables
echo "$*" >>{here}/typed
for word; do case $word in --format=*) mark=${{word#--format=}} mark=${{mark%%|*}};; esac; done
case "$*" in
*--steps*) sed "s/^{mark}/$mark/" {here}/steps;;
*) sed "s/^{mark}/$mark/" {here}/jobs;;
esac
"""


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what a stand-in for squeue says of jobs and steps, and what it was asked."""
    (tmp_path / "squeue").write_text(SQUEUE.format(here=tmp_path, mark=MARK))
    (tmp_path / "squeue").chmod(0o755)
    (tmp_path / "jobs").write_text(JOBS)
    (tmp_path / "steps").write_text(STEPS)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_squeue_is_asked_whatever_its_users_habits(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    assert [one.job for one in ps.list_clusters("root", None)] == ["7", "18", "12_3"]
    assert (squeue / "variables").read_text() == "0\n"
    asked = (squeue / "typed").read_text().splitlines()
    assert len(asked) == 2 and all("--all --user=root" in line for line in asked)


@pytest.mark.parametrize("job", ["12", "12_3", "30"])
def test_an_array_is_found_by_its_number_and_by_that_of_a_task(squeue: Path, job: str) -> None:
    assert [one.job for one in ps.list_clusters(None, job)] == ["12_3"]


@pytest.mark.parametrize(
    ("user", "job", "said"),
    [
        (None, "31", "job 31 has no running VMs"),
        (None, "1", "job 1 has no running VMs"),
        (None, "12;id", "'12;id' is not the number of a job"),
        ("no-such-user", None, "there is no user 'no-such-user'"),
        ("root,no-such-user", None, "there is no user 'no-such-user'"),
    ],
)
def test_what_cannot_be_listed_is_one_sentence(squeue: Path, user: str | None, job: str | None, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        ps.list_clusters(user, job)
    assert caught.value.message == said and caught.value.hint


def answer(asked: str, words: Sequence[str]) -> Answers:
    assert list(words) == ["show"]
    if asked in ("7", "18"):
        raise NodeError(f"no node of job {asked} answers")
    return Answers((NODES[0],), ("n2",), ())


def test_a_job_that_ends_meanwhile_is_no_error_of_the_others(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ps, "ask_nodes", answer)
    clusters = ps.list_clusters(None, None)
    (squeue / "steps").write_text("".join(line for line in STEPS.splitlines(True) if "|7." not in line))
    vms, silent = ps.list_vms(clusters)
    assert [(vm.job, vm.name) for vm in vms] == [("12_3", f"vm{rank}") for rank in range(4)]
    assert silent == ["job 18: no node of job 18 answers", "job 12_3: no answer from n2"]


def test_only_root_asks_the_nodes_of_others(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(RequestError, match="job 7 is alice's, and only that user and root can look into it"):
        ps.list_vms(ps.list_clusters(None, None))


def test_each_vm_has_a_line() -> None:
    lines = render_vms(plan_vms("12", NODES)).splitlines()
    assert lines[0].split() == ["JOB", "VM", "NODE", "ADDRESS", "REACHED", "BY", "CPU%", "MEMORY", "IMAGE", "SINCE", "STATE"]
    assert lines[1].split() == ["12", "vm0", "n1", "10.200.0.1", "n1:61222>22", "-", "-", "-", "-", "up"]
    assert lines[2].endswith("ended: its guest powered it off")
    assert lines[3].split()[:3] == ["12", "vm2", "n2"] and lines[3].endswith("booting")
    assert lines[4].split()[3] == "10.201.0.4", "of the network that its resource set has first"
    assert lines[4].endswith("not started")


def test_a_line_tells_what_a_vm_uses_its_image_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    used = {0: Usage(5000, 10000, 300 << 20, 448 << 20, 2), 1: Usage(1, 10000, 5 << 20)}
    states, since = {0: "up", 1: "booting", 2: "ended: x"}, {0: 86400, 1: 1 << 40, 2: 60}
    one = netjob.answer(1, states=states, usage=used, since=since, images={0: "site:tiny@2"})
    vms = plan_vms("12", [one])
    rows = [line.split() for line in render_vms(vms).splitlines()]
    assert rows[1][5:] == ["50/200", "300M/448M", "site:tiny@2", "1970-01-02T01:00:00", "up"]
    assert rows[2][5:] == ["0", "5M", "-", "-", "booting"], "a node may say anything"
    assert rows[3][5:] == ["-", "-", "-", "1970-01-01T01:01:00", "ended:", "x"], "which another node knows"
    [tree] = json.loads(render_json([VirtualCluster("12", "x", "alice", "main", 4, "0:10", "n[1-2]")], vms))
    assert [tree["vm_list"][0][key] for key in ("image", "since", "cpus")] == ["site:tiny@2", 86400, 2]


def test_vms_of_a_silent_node_are_listed() -> None:
    vms = plan_vms("12", NODES[:1])
    assert [(vm.name, vm.node, vm.address, vm.state) for vm in vms[2:]] == [
        ("vm2", "n2", "10.200.0.3", "unknown"), ("vm3", "n2", "10.201.0.4", "unknown"),
    ]  # fmt: skip


def test_of_a_node_whose_vms_have_ended_the_others_know(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has nothing left of the job, and no step can be run there inside the job's namespace."""
    ended = dict.fromkeys((2, 3), "ended: its guest powered it off")
    for states, said in ((ended, []), ({2: ended[2]}, ["job 12_3: no answer from n2"])):
        one = netjob.answer(1, states={0: "up", 1: "up", **states})
        monkeypatch.setattr(ps, "ask_nodes", lambda job, words, one=one: Answers((one,), ("n2",), ()))
        vms, silent = ps.list_vms(ps.list_clusters(None, "12_3"))
        assert [vm.state for vm in vms] == ["up", "up", *(states.get(rank, "unknown") for rank in (2, 3))]
        assert silent == said


def test_json_has_the_same() -> None:
    cluster = VirtualCluster("12", "x", "alice", "main", 4, "0:10", "n[1-2]")
    [bare] = json.loads(render_json([cluster], None))
    assert bare["vms"] == 4 and "vm_list" not in bare
    [full] = json.loads(render_json([cluster], plan_vms("12", NODES)))
    assert full["vm_list"][0] == {
        "name": "vm0", "node": "n1", "state": "up", "address": "10.200.0.1", "forwards": [{"vm_port": 22, "host_port": 61222}],
        "image": None, "since": None,
    }  # fmt: skip


def test_no_job_is_a_heading_alone() -> None:
    assert render_clusters([]).split() == ["JOB", "NAME", "USER", "PARTITION", "VMS", "TIME", "NODES"]
