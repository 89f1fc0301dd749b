"""The machine as Debian's kernel, systemd and Slurm see it: the other tests rely on this."""

import re

from tests.node.node import Node


def test_systemd_runs_it_with_cgroups_of_version_2(node: Node) -> None:
    assert node.read("/proc/1/comm") == "systemd"
    assert node.out("systemctl is-system-running") == "running"
    assert node.out("stat --file-system --format=%T /sys/fs/cgroup") == "cgroup2fs"
    assert {"cpu", "cpuset", "memory", "pids"} <= set(node.read("/sys/fs/cgroup/cgroup.controllers").split())


def test_it_has_two_numa_nodes_with_memory_and_huge_pages(node: Node) -> None:
    shown = node.out("numactl --hardware")
    assert re.findall(r"node \d cpus: (.*)", shown) == ["0 1", "2 3"]
    assert [row.split() for row in re.findall(r"(?m)^ +\d: (.*)$", shown)] == [["10", "21"], ["21", "10"]]
    assert len(set(node.out("cat /sys/devices/system/cpu/cpu*/topology/physical_package_id").split())) == 2
    pages = "/sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages"
    assert node.out(f"cat {pages}").split() == ["64", "64"]


def test_kvm_is_there_and_only_its_group_may_open_it(node: Node) -> None:
    assert node.out("stat -c '%F %U %G %a' /dev/kvm") == "character special file root kvm 660"
    assert "svm" in node.read("/proc/cpuinfo").split() and node.read("/sys/module/kvm_amd/parameters/npt") in ("1", "Y")
    assert "kvm" not in node.out("id -nG", "alice").split() and node.run("test -w /dev/kvm", "alice").returncode == 1


def test_functions_on_the_second_numa_node_are_iommu_groups_of_their_own(node: Node) -> None:
    assert "iommu" in node.out("ls /sys/class").split() and node.out("ls /sys/class/iommu") == "dmar0"
    device = node.out("readlink -f /sys/bus/pci/drivers/igb/*:*")
    assert node.read(f"{device}/numa_node") == "1"
    node.out(f"echo 0 >{device}/sriov_drivers_autoprobe; echo 2 >{device}/sriov_numvfs")
    try:
        functions = [device, *node.out(f"readlink -f {device}/virtfn*").split()]
        groups = [node.out(f"readlink -f {one}/iommu_group") for one in functions]
        assert len(set(groups)) == 3 and [node.out(f"ls {group}/devices").count(":") for group in groups] == [2, 2, 2]
        assert {node.read(f"{one}/numa_node") for one in functions} == {"1"}
        path = functions[1]
        node.out(
            f"modprobe vfio-pci; echo vfio-pci >{path}/driver_override; echo {path.rpartition('/')[2]}"
            " >/sys/bus/pci/drivers_probe"
        )
        assert node.out(f"test -c /dev/vfio/{groups[1].rpartition('/')[2]}; readlink {path}/driver").endswith("/vfio-pci")
    finally:
        node.out(f"echo 0 >{device}/sriov_numvfs")


def test_slurm_gives_each_task_the_cpus_of_a_socket_and_its_memory(node: Node) -> None:
    script = "echo $SLURM_PROCID $(taskset -cp $$ | sed 's/.*: //') $(numactl --show | sed -n 's/^membind: //p')"
    said = node.out(["srun", "-n2", "-c2", "--cpu-bind=cores", "--mem-bind=local", "bash", "-c", script], "alice")
    assert sorted(said.splitlines()) == ["0 0,1 0", "1 2,3 1"]
    assert node.out("scontrol show config | sed -n 's/^TaskPlugin  *= //p'") == "task/cgroup,task/affinity"
