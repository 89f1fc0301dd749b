"""A command in a VM runs as the same user, in the same directory, and with the job's variables."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.cluster import Cluster


@pytest.fixture(scope="module")
def variables(cluster: Cluster) -> dict[str, str]:
    """The environment of a command in vm1."""
    text = cluster.srun("--pcocc-vm=vm1 env", status=0).stdout
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_the_user_is_the_same(cluster: Cluster) -> None:
    here = cluster.box.out("id")
    assert cluster.vm(["id"]) == here


def test_the_users_of_all_vms_are_the_same(cluster: Cluster) -> None:
    done = cluster.srun(["--pcocc-vm=vm[0-3]", "sh", "-c", "echo $(id -un) $(id -u) $(id -g) $HOME ~"], status=0)
    assert set(done.stdout.splitlines()) == {"alice 2001 2001 /home/alice /home/alice"}


def test_the_shell_variables_of_the_user_are_the_same(variables: dict[str, str]) -> None:
    assert (variables["USER"], variables["LOGNAME"], variables["HOME"]) == ("alice", "alice", "/home/alice")


def test_the_working_directory_is_the_callers_where_it_exists(cluster: Cluster) -> None:
    for path in ("/tmp", "/usr/bin", "/home/alice"):
        assert cluster.vm("pwd; pwd -P", cwd=path).split() == [path, path]


def test_a_working_directory_that_the_guest_lacks_becomes_the_home(cluster: Cluster) -> None:
    assert cluster.vm(["pwd"], cwd="/usr/share/doc") == "/home/alice"


def test_chdir_is_for_the_guest(cluster: Cluster) -> None:
    assert cluster.srun("--pcocc-vm=vm0 --chdir=/var/log pwd", status=0).stdout == "/var/log\n"


@pytest.mark.parametrize("mask", ["0027", "0077", "0002"])
def test_the_umask_is_the_callers(cluster: Cluster, mask: str) -> None:
    done = cluster.box.run(["sh", "-c", f"umask {mask}; exec srun --pcocc-vm=vm0 sh -c umask"], env=cluster.environ, status=0)
    assert done.stdout.strip() == mask


def test_the_variables_of_slurm_are_there(cluster: Cluster, variables: dict[str, str]) -> None:
    assert variables["SLURM_JOB_ID"] == variables["SLURM_JOBID"] == str(cluster.job)
    assert variables["SLURM_PROCID"] == "0" and variables["SLURM_JOB_USER"] == "alice"
    assert variables["SLURM_JOB_NODELIST"] == "n[1-2]" and variables["SLURM_NNODES"]
    assert variables["SLURM_STEP_ID"].isdigit()


def test_the_variables_of_the_cluster_are_there(variables: dict[str, str]) -> None:
    assert (variables["PCOCC_VM_NAME"], variables["PCOCC_VM_RANK"], variables["PCOCC_NODELIST"]) == ("vm1", "1", "vm[0-3]")


def test_each_task_knows_its_vm(cluster: Cluster) -> None:
    done = cluster.srun(
        ["--pcocc-vm=vm[1,3]", "-n2", "-l", "sh", "-c", "echo $SLURM_PROCID $PCOCC_VM_NAME $PCOCC_VM_RANK $(hostname)"],
        status=0,
    )
    assert sorted(done.stdout.splitlines()) == ["0: 0 vm1 1 vm1", "1: 1 vm3 3 vm3"]


def test_the_host_file_names_the_cluster(cluster: Cluster) -> None:
    assert cluster.vm("cat $PCOCC_HOSTFILE", "vm2").split() == ["vm0", "vm1", "vm2", "vm3"]


def test_variables_of_the_caller_that_are_not_slurms_stay_outside(cluster: Cluster, variables: dict[str, str]) -> None:
    text = cluster.srun(["--pcocc-vm=vm0", "env"], status=0, cwd="/").stdout
    assert "LD_LIBRARY_PATH" not in text
    secret = [key for key in variables if key.startswith(("SLURM_SPANK", "PCOCC_BOOT", "PCOCC_CLUSTER"))]
    assert secret == []


def test_the_guests_own_path_is_kept(variables: dict[str, str]) -> None:
    assert "/usr/bin" in variables["PATH"].split(":") and "/opt/pcocc/bin" not in variables["PATH"]


@pytest.fixture
def odd_directory(cluster: Cluster) -> Iterator[Path]:
    """A directory with an awkward name, on the hosts and in vm0."""
    path = Path("/home/alice/boot test's $dir")
    path.mkdir()
    yield path
    path.rmdir()


def test_a_working_directory_may_have_any_name(cluster: Cluster, odd_directory: Path) -> None:
    cluster.vm(["mkdir", "-p", str(odd_directory)])
    assert cluster.vm(["pwd"], cwd=str(odd_directory)) == str(odd_directory)
