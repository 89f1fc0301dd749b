"""The real srun and sbatch with the real plugin, as far as they get without a slurmctld: a space where an equals sign was
meant.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

SCRIPT = "#!/bin/sh\n# first\n\n#SBATCH --pcocc-template=tiny:2 {}\n#\necho --pcocc-vm vm7\n"


def type_line(line: str, installed: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    (directory / "plugstack.conf").write_text(f"required {installed}/lib/slurm/pcocc.so\n")
    (directory / "slurm.conf").write_text(
        f"ClusterName=x\nSlurmctldHost=localhost\nMessageTimeout=1\nPlugStackConfig={directory}/plugstack.conf\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PCOCC_", "SBATCH_"))}
    argv = shlex.split(line)  # a command that is not refused looks for a slurmctld, in vain
    env["SLURM_CONF"] = f"{directory}/slurm.conf"
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=directory, env=env)


@pytest.mark.parametrize(
    ("line", "lines", "named"),
    [
        ("srun --pcocc-vm vm0 hostname", "", "vm0"), ("srun --pcocc-v vm[0-3,7]", "", "vm[0-3,7]"),
        ("srun -n1 --pcocc-vm vm1,vm2 x", "", "vm1,vm2"), ("sbatch --pcocc-template=tiny --pcocc-vm vm0 script", "", "vm0"),
        ("sbatch script", "--pcocc-vm vm1", "vm1"),
        ("sbatch -a 1-3 -W script", "--pcocc-vm vm1", "vm1"), ("sbatch --wait --requeue script", "--pcocc-vm vm1", "vm1"),
        ("sbatch -N2 script", "-n2 --pcocc-v  vm[0-1] # there", "vm[0-1]"),
    ],
)  # fmt: skip
def test_a_space_is_told(installed: Path, tmp_path: Path, line: str, lines: str, named: str) -> None:
    (tmp_path / "script").write_text(SCRIPT.format(lines))
    done = type_line(line, installed, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"pcocc: error: --pcocc-vm takes its VMs after an equals sign: write --pcocc-vm={named}\nhint: "
    )


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("srun --pcocc-vm ./vm0", ""), ("srun --pcocc-vm=vm0 vm0", ""), ("srun --pcocc-vm vmlinux", ""),
        ("srun --pcocc-vm vm", ""), ("srun hostname --pcocc-vm vm0", ""), ("srun --no-pcocc-vm vm0", ""),
        ("sbatch --pcocc-vm script vm0", ""), ("sbatch --pcocc-vm vm0", ""),
        ("sbatch script --pcocc-vm vm0", "# --pcocc-vm vm0"), ("sbatch script", "--pcocc-vm=vm0"),
    ],
)  # fmt: skip
def test_nothing_else_is(installed: Path, tmp_path: Path, line: str, lines: str) -> None:
    for name in ("script", "vm0") if line.endswith("-vm vm0") and line.startswith("sbatch --") else ("script",):
        (tmp_path / name).write_text(SCRIPT.format(lines))
    assert "equals sign" not in type_line(line, installed, tmp_path).stderr
