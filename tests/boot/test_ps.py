"""`pcocc ps`: the running virtual clusters and their VMs, in real jobs."""

from __future__ import annotations

import json
import re

from tests.boot.box import Box
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import wait_for


def test_jobs_with_vms_are_listed_with_their_owner_and_nodes(box: Box, cluster: Cluster) -> None:
    lines = box.out("pcocc ps").splitlines()
    own = next(line.split() for line in lines if line.startswith(f"{cluster.job} "))
    assert own[2:5] == ["alice", "main", "4"] and own[-1] == "n[1-2]"
    assert len(box.out("pcocc ps", user="bob").splitlines()) == 1
    assert f"\n{cluster.job} " in box.out("pcocc ps --all", user="bob")
    assert f"\n{cluster.job} " in box.out("pcocc ps -u alice", user="bob")


def test_each_vm_is_listed_with_its_node_ports_and_end(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:1,twin:1", "-N2") as cluster:
        rows = [line.split() for line in box.out(f"pcocc ps -l -j {cluster.job}").splitlines()]
        assert [row[1:4] for row in rows[1:]] == [["vm0", "n1", "10.200.0.1"], ["vm1", "n2", "10.201.0.2"]]
        assert rows[1][4] == "-" and rows[1][9:] == rows[2][9:] == ["up"]
        assert re.fullmatch(r"\d+/\d00 \d+M/\d+M \S+ 20\d\d-\S+", " ".join(rows[1][5:9])) and "tiny" in rows[1][7]
        assert re.fullmatch(r"n2:60\d{3}>22", rows[2][4])  # a free one of the network's range: another job may have the first
        cluster.srun(["--overlap", "--pcocc-vm=vm1", "sudo", "poweroff"])
        cluster.srun(["--overlap", "--pcocc-vm=vm1", "true"])  # ends when the VM has
        [job] = [one for one in json.loads(box.out("pcocc ps -l --json")) if one["job"] == str(cluster.job)]
        assert [vm["state"] for vm in job["vm_list"]] == ["up", "ended: its guest powered it off"]
        done = box.run(f"pcocc ps -l -j {cluster.job}", user="bob")
        assert done.returncode == 1 and "alice's" in done.stderr and "Traceback" not in done.stderr
    done = box.run(f"pcocc ps -j {cluster.job}")
    assert (
        done.returncode == 1
        and f"job {cluster.job} has no running VMs" in done.stderr
        and done.stderr.count("pcocc: error:") == 1
    )


def test_where_slurm_keeps_no_accounting_usage_says_so(box: Box, cluster: Cluster) -> None:
    """As in this box, which has no slurmdbd."""
    done = box.run(f"pcocc usage {cluster.job}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pcocc: error: this site's Slurm keeps no accounting"), done.stderr


def test_names_with_line_ends_are_nobody_elses(box: Box, cluster: Cluster) -> None:
    forged = f"x\n{cluster.job}|{cluster.job}|bob|main|0:01|forged\n{cluster.job} {cluster.job} bob main 0:01 forged"
    step = f"pcocc-vms\n{cluster.job}.1|99|n9|pcocc-vms\nStepId={cluster.job}.1 NodeList=n9 Tasks=99 Name=pcocc-vms"
    words = ["sbatch", "--parsable", "-n1", "--output=/dev/null", "--wrap", 'srun -J "$STEP" sleep 60']
    job = box.out(words, env={"SBATCH_JOB_NAME": forged, "STEP": step})
    try:
        wait_for(lambda: "pcocc-vms" in box.out(["squeue", "-h", "-s", "-j", job, "-o", "%j"]), "the step")
        found = {one["job"]: one for one in json.loads(box.out("pcocc ps --all --json", user="bob"))}
        assert (found[str(cluster.job)]["user"], found[str(cluster.job)]["vms"], found[str(cluster.job)]["nodes"]) == (
            "alice", 4, "n[1-2]",
        )
        assert found[job]["name"] == "x" and set(found) >= {job, str(cluster.job)}
    finally:
        box.run(["scancel", job], status=0)
        wait_for(lambda: int(job) not in box.jobs(name=""), "the job's end")
