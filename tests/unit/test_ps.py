"""`pcocc ps`: what Slurm and the nodes say, as a line for each job or VM."""

import json

from pcocc_runtime import netfacts, psview
from pcocc_runtime.psview import VirtualCluster
from pcocc_runtime.system import slurm
from tests.unit import netjob

JOBS = """18 18 alice main 2:19 interactive
30 12_3 alice main 1-00:00:27 a name | with blanks
31 31 alice main 0:01 waits
7 7 alice long 5:00
garbage
"""
STEP = "StepId={} UserId=2001 StartTime=x State=RUNNING Partition=main NodeList={} Nodes=2 CPUs=4 Tasks={} Name={} Network=(null)\n"
STEPS = (
    STEP.format("18.1", "n[1-2]", 4, "pcocc-vms") + STEP.format("30.0", "n1", 1, "pcocc-vms") + STEP.format("7.2", "n7", 2, "pcocc-vms")
    + STEP.format("31.0", "n1", 1, "sleep") + STEP.format("99.0", "n1", 1, "pcocc-vms") + "No job steps\n"
)  # fmt: skip
NODES = [
    netfacts.parse_node(netjob.node(1, vms={"0": "up", "1": "ended: its guest powered it off"})),
    netfacts.parse_node(netjob.node(2, vms={"2": "booting\x1b[2J"})),
]


def test_jobs_with_a_boot_step_are_listed_by_their_numbers() -> None:
    found = slurm.parse_listed(JOBS, STEPS)
    assert [(one.job, one.label, one.name, one.vms, one.nodes) for one in found] == [
        (7, "7", "", 2, "n7"), (18, "18", "interactive", 4, "n[1-2]"), (30, "12_3", "a name | with blanks", 1, "n1"),
    ]  # fmt: skip


def test_each_vm_has_a_line() -> None:
    lines = psview.render_vms(psview.find_vms("12", NODES)).splitlines()
    assert lines[0].split() == ["JOB", "VM", "NODE", "ADDRESS", "REACHED", "BY", "STATE"]
    assert lines[1].split() == ["12", "vm0", "n1", "10.200.0.1", "n1:61222>22", "up"]
    assert lines[2].endswith("ended: its guest powered it off")
    assert lines[3].split()[:3] == ["12", "vm2", "n2"] and "booting" in lines[3] and "\x1b" not in lines[3]
    assert lines[4].endswith("not started")


def test_vms_of_a_silent_node_are_listed() -> None:
    vms = psview.find_vms("12", NODES[:1])
    assert [(vm.name, vm.node, vm.address, vm.state) for vm in vms[2:]] == [
        ("vm2", "n2", "10.200.0.3", "unknown"), ("vm3", "n2", "10.200.0.4", "unknown"),
    ]  # fmt: skip


def test_json_has_the_same() -> None:
    cluster = VirtualCluster("12", "x", "alice", "main", 4, "0:10", "n[1-2]")
    [bare] = json.loads(psview.render_json([cluster], None))
    assert bare["vms"] == 4 and "vm_list" not in bare
    [full] = json.loads(psview.render_json([cluster], psview.find_vms("12", NODES)))
    assert full["vm_list"][0] == {
        "name": "vm0", "node": "n1", "state": "up", "address": "10.200.0.1", "forwards": [{"vm_port": 22, "host_port": 61222}],
    }  # fmt: skip


def test_no_job_is_a_heading_alone() -> None:
    assert psview.render_clusters([]).split() == ["JOB", "NAME", "USER", "PARTITION", "VMS", "TIME", "NODES"]
