"""Shared names (documents/wire.py) of jobs and steps, with which root's helper has nothing to do.

Imports nothing: it is on the way of every VM step.
"""

from __future__ import annotations

# the plugin's options, as they follow `--`
OPTION_TEMPLATE = "pcocc-template"
OPTION_VM = "pcocc-vm"
OPTION_NO_VM = "no-pcocc-vm"
OPTION_IMAGE = "pcocc-image"
OPTION_MOUNT = "pcocc-mount"
OPTION_USER_DATA = "pcocc-user-data"
OPTION_USER_DATA_FORCE = "pcocc-user-data-force"
OPTION_RESTART = "pcocc-restart"
OPTION_CHECKPOINT = "pcocc-checkpoint"
# internal: makes a step the boot step, its value names the resource sets of its VMs
OPTION_BOOT = "pcocc-boot"
# before such a name where Slurm hands an option on: the plugin is called pcocc
SENT_OPTION = "SLURM_SPANK_OPTION_pcocc_"

# what a user may export in place of an option
VAR_TEMPLATE = "PCOCC_TEMPLATE"
VAR_VM = "PCOCC_VM"
VAR_IMAGE = "PCOCC_IMAGE"
VAR_MOUNT = "PCOCC_MOUNT"
VAR_USER_DATA = "PCOCC_USER_DATA"
VAR_USER_DATA_FORCE = "PCOCC_USER_DATA_FORCE"
VAR_RESTART = "PCOCC_RESTART"
VAR_CHECKPOINT = "PCOCC_CHECKPOINT"

# salloc --no-shell: the name of a file of the user's that has the frozen cluster (spank/kept.c), as the
# filter gets it
JOB_KEPT = "PCOCC_KEPT"
KEPT_LENGTH = 32  # hexadecimal digits of such a name
KEPT_MARK = "pcocc-cluster="  # before it in the job's AdminComment

# from srun to the tasks of a VM step
ENV_STEP_EXPORT = "SLURM_PCOCC_EXPORT"  # what its user wrote as --export, or in a variable in place of it
# a --multi-prog step: srun itself has put the attach client in front of each program
ENV_STEP_PROGRAMS = "SLURM_PCOCC_PROGRAMS"
# srun has copied the command's file to the nodes (--bcast): the VMs need it, too
ENV_STEP_BCAST = "SLURM_PCOCC_BCAST"
# JSON, for the step that runs a batch script in a VM: its variables, and names it shall not have
ENV_BATCH_ENVIRON = "SLURM_PCOCC_BATCH_ENVIRON"

# from the plugin to the attach client of a task
# of the task's command, in whose place the client runs (Slurm before 23.11)
ENV_FIRST_WORD = "SLURM_PCOCC_WORD"
# a descriptor: the environment before prolog scripts, as in /proc/PID/environ
ENV_BEFORE_FD = "SLURM_PCOCC_BEFORE"

# the starter of a boot step (vm/starter.py) and the srun that waits for it
STATUS_FD = 3  # takes one of the words below and a line end
PARENT_FD = 4  # ends when that srun does
BOOT_READY = "ready"
BOOT_JOINED = "joined"
BOOT_FAILED = "failed"

# what the check of a request returns (submit/main.py)
CHECK_BROKEN = 0
CHECK_PASSED = 1
CHECK_REFUSED = 2
