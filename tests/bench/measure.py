"""The figures of SPECIFICATION.md, each against a baseline of the same run: `make bench`. Nothing here fails on a clock."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOX = str(ROOT / "tests/box")


def box(*argv: str, root: bool = False, node: str | None = None) -> str:
    """Run a command in the box and return its output."""
    words = [BOX, "run", "--as", "root" if root else "alice", *(["--on", node] if node else []), "--", *argv]
    return subprocess.run(words, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def timed_inside(*argv: str) -> float:
    """Return the seconds a command takes inside the box, without the way in."""
    text = box("sh", "-c", 'a=$(date +%s%N); "$@" >/dev/null 2>&1; b=$(date +%s%N); echo $((b-a))', "sh", *argv)
    return int(text) / 1e9


def measure_plain_srun() -> None:
    """`srun -n1 true`: the client with our plugstack against an empty one (slurmd's side has the plugin in both)."""
    box(
        "sh",
        "-c",
        "sed 's,^PlugStackConfig=.*,PlugStackConfig=/dev/null,' /etc/slurm/slurm.conf > /tmp/empty.conf; chmod 644 /tmp/empty.conf",
    )
    mine: list[float] = []
    empty: list[float] = []
    for _ in range(40):
        mine.append(timed_inside("srun", "-n1", "true"))
        empty.append(timed_inside("env", "SLURM_CONF=/tmp/empty.conf", "srun", "-n1", "true"))
    ratio = statistics.median(a / b for a, b in zip(mine, empty, strict=True))
    print(
        f"srun -n1 true, 40 pairs: {statistics.median(mine) * 1e3:.1f} ms, empty plugstack "
        f"{statistics.median(empty) * 1e3:.1f} ms, ratio {ratio:.3f} (promise 1.02)"
    )


def measure_attach() -> None:
    """`srun --pcocc-vm true` on running VMs against a plain step plus the same ssh by hand in the job's namespace."""
    job = submit("tiny:1", "srun --pcocc-vm true; : > ready; sleep 300")
    try:
        key, address = f"/run/pcocc/{job}/key", "10.200.0.1"
        ssh = f"ssh -F /dev/null -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR alice@{address} true"
        by_hand = f"nsenter --net=/run/netns/pcocc-{job} setpriv --reuid=alice --regid=alice --clear-groups {ssh}"
        step = ["srun", f"--jobid={job}", "--overlap", "-n1"]
        cluster = box(
            "sh",
            "-c",
            "cat /proc/$(pgrep -n -u alice -f slurm_script)/environ | tr '\\0' '\\n' | grep ^SLURM_SPANK_PCOCC",
            node="n1",
        )
        environ = cluster.split()
        vm = statistics.median(
            timed_inside("env", *environ, f"SLURM_JOB_ID={job}", *step, "--pcocc-vm=vm0", "true") for _ in range(15)
        )
        plain = statistics.median(timed_inside(*step, "true") for _ in range(15))
        hand = statistics.median(
            int(box("sh", "-c", f"a=$(date +%s%N); {by_hand}; b=$(date +%s%N); echo $((b-a))", root=True, node="n1")) / 1e9
            for _ in range(15)
        )
        print(
            f"srun --pcocc-vm true: {vm * 1e3:.0f} ms; plain step {plain * 1e3:.0f} ms + ssh by hand {hand * 1e3:.0f} ms: "
            f"{(vm - plain - hand) * 1e3:.0f} ms more (promise 60)"
        )
        measure_memory(job)
    finally:
        box("scancel", str(job))


def submit(template: str, script: str, *options: str) -> int:
    """Submit a batch job, wait until its script made the file `ready`, and return its id."""
    box("rm", "-f", "ready")
    job = int(box("sbatch", "--parsable", "-o", "/dev/null", f"--pcocc-template={template}", *options, "--wrap", script))
    while subprocess.run([BOX, "run", "--", "test", "-e", "ready"], check=False).returncode:
        time.sleep(0.2)  # a job's script has no other way to reach us
    return job


def measure_memory(job: int) -> None:
    """What is resident beside QEMU: the keeper's and its share of dnsmasq's and slurmstepd's own pages."""
    script = f"""for p in $(pgrep -f 'keeper.*"job": {job},'); do grep -E '^(Rss|Pss):' /proc/$p/smaps_rollup; done"""
    found = dict(re.findall(r"(Rss|Pss): +(\d+)", box("sh", "-c", script, root=True, node="n1")))
    print(f"keeper: {int(found['Rss']) / 1024:.1f} MiB resident, {int(found['Pss']) / 1024:.1f} MiB its share (promise 15 MiB)")


def measure_start(template: str, *options: str) -> None:
    """From srun typed to the last QEMU's exec: the time of the file the launcher writes just before."""
    samples = []
    for _ in range(3):
        begin = time.time()
        srun = subprocess.Popen(
            [BOX, "run", "--", "srun", f"--pcocc-template={template}", *options, "true"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stamps: list[float] = []
        wanted = int(template.partition(":")[2] or 1)
        while len(stamps) < wanted and srun.poll() is None:
            text = "".join(
                box("sh", "-c", "stat -c %.Y /run/pcocc/*/vm*/qemu.json 2>/dev/null; true", root=True, node=node)
                for node in ("n1", "n2")
            )
            stamps = [float(word) for word in text.split() if float(word) > begin]
        srun.wait()
        if stamps:
            samples.append(max(stamps) - begin)
    line = " ".join(["srun", f"--pcocc-template={template}", *options])
    print(
        f"{line}, typed to the last QEMU's exec: median {statistics.median(samples):.2f} s of {sorted(round(s, 2) for s in samples)}"
    )


def main() -> None:
    """Measure everything once; the box is up and quiet."""
    subprocess.run([BOX, "up"], check=True)
    subprocess.run([BOX, "image", "tiny"], check=True)
    subprocess.run([BOX, "status", "--wait", "60"], check=False, stdout=subprocess.DEVNULL)
    measure_plain_srun()
    measure_start("tiny:1")
    measure_start("tiny:8", "-N2")
    measure_attach()


if __name__ == "__main__":
    main()
