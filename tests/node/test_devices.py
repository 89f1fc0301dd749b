"""ConstrainDevices with cgroup v2: of the devices that Slurm counts, a VM may open those that its job has."""

from tests.machinelib.ssh import Done
from tests.node.node import Job, Node, submit_cluster

COUNTED = "/dev/full"  # which stands for a GPU in tests/machinelib/site/gres.conf


def open_as_vm(node: Node, job: Job) -> Done:
    """Open the device in the cgroup of a VM's QEMU, as root, whom no mode of a file refuses."""
    group = node.read(f"/proc/{node.qemus(job.number)['vm0']}/cgroup").removeprefix("0::")
    return node.run(f"echo $$ >/sys/fs/cgroup{group}/cgroup.procs && exec head -c 1 {COUNTED}")


def open_in_step(job: Job) -> Done:
    """Open the device in a step without VMs: what Slurm does by itself."""
    return job.srun("-n1", "--overlap", "--mem=0", "sh", "-c", f": <{COUNTED}")


def test_a_vm_may_open_the_devices_that_its_job_has(node: Node, cluster: Job) -> None:
    assert open_in_step(cluster).returncode != 0
    refused = open_as_vm(node, cluster)
    assert refused.returncode != 0 and f"{COUNTED}' for reading: Operation not permitted" in refused.stderr, refused.stderr
    job = submit_cluster(node, "tiny:1", "--gres=gpu:1")
    assert open_in_step(job).returncode == 0
    assert open_as_vm(node, job).returncode == 0
    job.end()
