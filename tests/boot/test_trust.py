"""Who may do what: another user gets at nothing of a job, and root checks everything that users may have forged."""


import pytest

from tests.boot.box import HOME, NODES, STATE, Box, Done
from tests.boot.cluster import Cluster

PARTS = ("", "/key", "/cluster.json", "/node.json", "/vm0/qmp", "/vm0/console", "/vm0/agent", "/vm0/seed.iso", "/vm0/qemu.json")
CONNECT = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def ensure_denied(done: Done) -> None:
    """Check that the kernel or Slurm said no."""
    assert done.returncode != 0
    assert any(
        word in done.stderr for word in ("ermission denied", "not permitted", "Invalid job id", "Access/permission")
    ), done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_another_user_reads_nothing_of_a_job(cluster: Cluster, part: str) -> None:
    path = f"/run/pcocc/{cluster.job}{part}"
    assert cluster.box.run(["ls", path], node="n1").returncode == 0, "the owner may"
    ensure_denied(cluster.box.run(["ls", path] if part == "" else ["cat", path], user="bob", node="n1"))


@pytest.mark.parametrize("name", ["qmp", "console", "agent"])
def test_another_user_reaches_no_socket_of_a_vm(cluster: Cluster, name: str) -> None:
    path = f"/run/pcocc/{cluster.job}/vm0/{name}"
    ensure_denied(cluster.box.run(["python3", "-c", CONNECT, path], user="bob", node="n1"))


def test_another_user_reaches_no_disk(cluster: Cluster) -> None:
    path = f"/var/lib/pcocc/scratch/pcocc/{cluster.job}"
    assert "vm0.qcow2" in cluster.box.out(["ls", path], node="n1")
    for words in (["ls", path], ["cat", f"{path}/vm0.qcow2"]):
        ensure_denied(cluster.box.run(words, user="bob", node="n1"))


def test_another_user_sees_no_environment_of_a_vm(cluster: Cluster) -> None:
    for one in cluster.box.processes(
        rf"guest=job{cluster.job}-|keeper .\"job\": {cluster.job}|boot {cluster.job}$|--jobid={cluster.job} "
    ):
        for name in ("environ", "maps"):
            ensure_denied(cluster.box.run(["cat", f"/proc/{one.pid}/{name}"], user="bob", node=one.node))


def test_no_command_line_shows_a_key(cluster: Cluster) -> None:
    for one in cluster.box.processes("."):
        assert "PRIVATE KEY" not in one.words and "b3BlbnNzaC1rZXk" not in one.words


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_roots_records_are_roots(cluster: Cluster, user: str) -> None:
    ensure_denied(cluster.box.run(["ls", "/run/pcocc/.state"], user=user, node="n1"))


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_nobody_enters_the_network_of_a_job_by_hand(cluster: Cluster, user: str) -> None:
    ensure_denied(cluster.box.run(["nsenter", f"--net=/run/netns/pcocc-{cluster.job}", "true"], user=user, node="n1"))


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_vms_are_not_reachable_from_the_nodes_own_network(cluster: Cluster, user: str) -> None:
    code = "import socket; socket.create_connection(('10.200.0.1', 22), 2)"
    assert cluster.box.run(["python3", "-c", code], user=user, node="n1").returncode != 0


@pytest.mark.parametrize("words", [["true"], ["--pcocc-vm", "true"], ["--pcocc-boot=default:4", "true"]])
def test_another_user_attaches_to_no_job(cluster: Cluster, words: list[str]) -> None:
    done = cluster.box.run(["srun", f"--jobid={cluster.job}", "--overlap", *words], user="bob")
    assert done.returncode != 0 and done.stdout == ""


def test_another_user_with_the_owners_variables_attaches_to_no_job(cluster: Cluster) -> None:
    done = cluster.box.run(
        "srun --overlap --pcocc-vm=vm0 hostname", user="bob", env={**cluster.environ, "USER": "bob"}, timeout=60
    )
    assert done.returncode != 0 and "vm0" not in done.stdout


def test_another_user_boots_nothing_in_a_job(cluster: Cluster) -> None:
    script = f"exec 3>&1 4<&0 </dev/null; exec /opt/pcocc/libexec/pcocc/boot {cluster.job}"  # as the plugin does
    done = cluster.box.run(["sh", "-c", script], user="bob", env=cluster.environ, timeout=60)
    assert "Traceback" not in done.stderr and "ready" not in done.stdout
    assert sorted(cluster.qemus()) == ["vm0", "vm1", "vm2", "vm3"]
    assert all(one.status("Uid")[0] == "2001" for one in cluster.qemus().values())


def test_another_user_signals_no_vm(cluster: Cluster) -> None:
    for one in cluster.qemus().values():
        ensure_denied(cluster.box.run(["python3", "-c", f"import os; os.kill({one.pid}, 15)"], user="bob", node=one.node))


def test_the_nodes_helper_does_nothing_for_a_user(box: Box) -> None:
    for verb in ("start", "setup", "release"):
        done = box.run(["/opt/pcocc/libexec/pcocc/node", verb], node="n1", input="job 1\nstep 1\nend\n")
        assert done.returncode != 0 and "Traceback" not in done.stderr


@pytest.mark.parametrize("sets", ["x;y", "$(id)", "default:2\nend", "default:99", "nosuch:1", "", "../x:1", "a" * 2000])
def test_a_forged_boot_step_is_told_what_is_wrong(box: Box, sets: str) -> None:
    done = box.run(["srun", "-n1", f"--pcocc-boot={sets}", "id"], timeout=60)
    assert done.returncode != 0, done.stdout
    assert "uid=0" not in done.stdout
    assert "pcocc" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_boot_step_by_hand_is_the_users_own_task(box: Box) -> None:
    done = box.run(
        ["srun", "-n1", "--pcocc-boot=default:1", "sh", "-c", "id -u; id -G; grep CapEff /proc/self/status"], timeout=60
    )
    if done.returncode == 0:
        assert done.stdout.split() == ["2001", "2001", "CapEff:", "0000000000000000"]


def test_forged_variables_of_a_vm_step_leave_a_plain_step_plain(box: Box) -> None:
    done = box.run(
        "srun -n1 hostname", env={"SLURM_PCOCC_VMS": "vm0", "PCOCC_VM_NAME": "vm0", "PCOCC_TAP_FDS": "0,1,2"},
        timeout=60,
    )
    assert done.returncode == 0 and done.stdout.strip() in NODES


def test_a_vm_step_forged_past_srun_is_only_an_error(box: Box) -> None:
    """A wrapper that sets the variable after srun's hooks have run is the same as a task that is started with it."""
    script = "export SLURM_PCOCC_VMS=vm0; exec /opt/pcocc/libexec/pcocc/attach id"
    done = box.run(["srun", "-n1", "env", "PCOCC_VM_NAME=vm0", "sh", "-c", script], timeout=60)
    assert done.returncode != 0 and "Traceback" not in done.stderr and "uid=0" not in done.stdout


CLUSTERS = ["", "garbage", "eJwDAAAAAAE=", "A" * 100_000]


@pytest.mark.parametrize("text", CLUSTERS, ids=["empty", "garbage", "nothing", "long"])
def test_a_forged_cluster_is_told_what_is_wrong(box: Box, text: str) -> None:
    argv = ["salloc", "--quiet", "-n1", "sh", "-c",
            f"export SLURM_SPANK_PCOCC_TEMPLATE=tiny:1 SLURM_SPANK_PCOCC_CLUSTER={text}; exec srun --pcocc-vm hostname"]
    done = box.run(argv, timeout=60)
    assert done.returncode != 0 and done.stdout == ""
    assert "pcocc: error:" in done.stderr and "hint:" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_forged_tap_descriptor_is_replaced(box: Box) -> None:
    env = {"PCOCC_TAP_FDS": "0", "PCOCC_PROBE_FD": "1", "PCOCC_TASK_MEMORY": "999999", "PCOCC_BOOT": "x"}
    done = box.run("srun --pcocc-template=tiny hostname", env=env, timeout=120)
    assert done.stdout == "vm0\n" or (done.returncode != 0 and "Traceback" not in done.stderr), done.stderr


def test_a_user_with_his_own_configuration_meets_the_sites_limit(box: Box) -> None:
    directory = HOME / "boottest-etc"
    directory.mkdir()
    for path in (STATE / "etc/pcocc").glob("*.yaml"):
        (directory / path.name).write_text(path.read_text().replace("max-vms: 64", "max-vms: 4096"))
    try:
        before = box.jobs("all")
        done = box.run(
            "srun --pcocc-template=tiny:65 --overcommit -N2 hostname", env={"PCOCC_SYSTEM_CONF_DIR": str(directory)},
            timeout=60,
        )
        assert done.returncode != 0 and "64" in done.stderr, done.stderr
        assert box.jobs("all") == before
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


@pytest.mark.parametrize("path", ["/etc/pcocc", "/etc/pcocc/networks.yaml"])
def test_a_configuration_that_others_can_write_is_refused(box: Box, path: str) -> None:
    with box.changed(f"chmod o+w {path}", f"chmod o-w {path}"):
        done = box.run("srun --pcocc-template=tiny hostname", timeout=90)
    assert done.returncode != 0 and done.stdout == ""
    assert "pcocc: error:" in done.stderr and "/etc/pcocc" in done.stderr, done.stderr
    assert "hint:" in done.stderr
