"""A site's policy and the filter as the build installs it, for whoever runs the filter."""

import shutil
import subprocess
import sys
from pathlib import Path

from pcocc_runtime.site import policy
from pcocc_runtime.site.check import load_everything

ROOT = Path(__file__).parents[2]
INTERPRETERS = [name for name in ("lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit") if shutil.which(name)]

SITE = {
    "pcocc.yaml": "max-vms: 16\ndevices: {'gpu:a100': {ids: ['10de:20b2']}, nvme: {ids: ['144d:a80a']}}\n",
    "networks.yaml": (
        "lan: {type: ethernet}\nfabric: {type: infiniband, settings: {host-device: mlx5_0, min-pkey: '0x00fe',"
        " max-pkey: '0x0101', max-vms: 8}}\nsecond: {type: ib, settings: {host-device: mlx5_1, min-pkey: '0x2000',"
        " max-pkey: '0x23e7', license: k, guid-prefix: '0xc2cd'}}\n"
    ),
    "resources.yaml": (
        "default: {networks: [lan], default: true}\nib: {networks: [lan], partitions: [ib]}\nown: {users: [alice,"
        " carol], groups: [physics], qos: [normal]}\nlab: {groups: [physics]}\nhpc: {networks: [lan, fabric]}\nboth:"
        " {networks: [second, fabric]}\nwide: {networks: [second]}\n"
        "ai: {devices: {'gpu:a100': 2, nvme: 1}}\n"
    ),
    "templates.yaml": (
        "tiny: {memory: 256M}\nbig: {cpus: 4, memory: 2G, resource-set: ib}\nwhole: {full-node: true}\n"
        "mpi: {resource-set: hpc}\ntwo: {resource-set: both}\nmany: {resource-set: wide}\n"
        "train: {resource-set: ai}\n"
    ),
    "policy.yaml": (
        "limits: [{accounts: [students], max-vms: 4}, {partitions: [vm], max-vms: 16}, {partitions: [debug], max-vms:"
        " 2}]\ntemplates: {big: {accounts: [physics]}}\n"
    ),
}


def write_policy(directory: Path) -> Path:
    """Write the policy of SITE as `pcocc config policy` would."""
    for name, text in SITE.items():
        (directory / name).write_text(text)
    loaded = load_everything(str(directory))
    assert loaded.problems == ()
    path = directory / "policy.lua"
    site = loaded.site
    path.write_text(
        policy.render_policy(loaded.policy, site.max_vms, loaded.templates, site.default_set, site.all_networks, site.all_sets)
    )
    return path


def install_filter(directory: Path) -> Path:
    """Put the filter there with the shared names filled in, as the build does; return the directory."""
    for name in ("pcocc.lua", "pcocc_text.lua", "pcocc_keys.lua", "pcocc_devices.lua", "job_submit.lua"):
        tables = sorted((ROOT / "pcocc_runtime/documents").glob("wire*.py"))
        (directory / name).write_text(
            run(sys.executable, ROOT / "spank/render_wire.py", *tables, ROOT / "job_submit" / name, "/opt/x")
        )
    return directory


def run(program: str, *arguments: str | Path) -> str:
    """Run a program to its end and return what it wrote; it must not fail."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
