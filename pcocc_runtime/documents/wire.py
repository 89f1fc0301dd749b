"""What the plugin in C, the filter in Lua and the runtime in Python call by the same name: each row is such a name.

The build renders them into wire.h and the filter (spank/render_wire.py). Imports nothing: every VM step waits
for it. More rows are in documents/wire_steps.py.
"""

from __future__ import annotations

# what the checked request leaves with the job: JOB_* for job_submit, in the job's environment with SLURM_SPANK_ before
JOB_CLUSTER = "PCOCC_CLUSTER"  # the frozen cluster, documents/cluster.py
JOB_TEMPLATE = "PCOCC_TEMPLATE"  # its canonical text
JOB_SIZE = "PCOCC_SIZE"  # vms=2;cpus=1;memory=512;exclusive=0;sets=default:2
JOB_BATCH_VM = "PCOCC_BATCH_VM"  # where the batch script runs
ENV_CLUSTER = "SLURM_SPANK_" + JOB_CLUSTER
ENV_TEMPLATE = "SLURM_SPANK_" + JOB_TEMPLATE
ENV_SIZE = "SLURM_SPANK_" + JOB_SIZE
ENV_BATCH_VM = "SLURM_SPANK_" + JOB_BATCH_VM

# from srun to the tasks of a VM step
ENV_STEP_VMS = "SLURM_PCOCC_VMS"  # makes it one, and names its VMs
ENV_STEP_INSIDE = "SLURM_PCOCC_INSIDE"  # has an operation begin in the job's network namespace, as all other tasks
ENV_PATIENCE = "SLURM_PCOCC_PATIENCE"  # seconds its tasks wait for the job's namespace; 0 once the VMs have run
ENV_VM_NAME = "PCOCC_VM_NAME"  # a task's VM, and the guest's own name

# to a task of the boot step: from its starter, and from the plugin
ENV_BOOT = "PCOCC_BOOT"  # documents/boot.py
ENV_TASK_MEMORY = "PCOCC_TASK_MEMORY"  # MiB, 0 for no limit
ENV_TAP_FDS = "PCOCC_TAP_FDS"  # descriptors: 5,6 (documents/queues.py)
ENV_PROBE_FD = "PCOCC_PROBE_FD"  # a socket in the job's namespace
ENV_KVM_FD = "PCOCC_KVM_FD"  # /dev/kvm, opened by root for who may not; negative where it is not to be used

BOOT_STEP = "pcocc-vms"  # the boot step's name in Slurm
EXIT_DUPLICATE = 75  # of its task where the job has another boot step

RUN_PATH = "/run/pcocc"
NETNS_PATH = "/run/netns/pcocc-"  # and the number of the job

# root's helper on a node (node/main.py): its verbs, and exit statuses the plugin acts on
HELPER_SETUP = "setup"
HELPER_RELEASE = "release"
HELPER_START = "start"
HELPER_DUPLICATE = 3  # an older boot step of the job lives
HELPER_CONFLICT = 4  # a younger one is in the way
HELPER_CHARGE = 5  # slurmctld must say what the job is charged to and runs in
