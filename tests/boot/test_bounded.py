"""What a guest or a user can fill on a node is limited, and the end of what was written can be read."""

import re

from tests.boot.box import Box
from tests.boot.cluster import make_cluster
from tests.waiting import wait_for

SIZE = 1 << 20  # bytes kept of a console


def test_neither_a_guests_console_nor_its_user_fills_a_node(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny", "-w", "n1") as cluster:
        scratch = box.root("n1", f"/var/lib/pcocc/scratch/pcocc/{cluster.job}")
        endless = "exec yes 'a guest that says this for ever' >/dev/ttyS0"
        running = cluster.start(["-n1", "--pcocc-vm=vm0", "sudo", "sh", "-c", endless])
        wait_for((scratch / "vm0.console.log.old").exists, "the first turn of the log", 120)
        first = (scratch / "vm0.console.log.old").stat().st_mtime_ns
        wait_for(
            lambda: (scratch / "vm0.console.log.old").stat().st_mtime_ns != first,
            "the second turn of the log",
            120,
        )
        assert sum(path.stat().st_size for path in scratch.glob("vm0.console.log*")) < 4 * SIZE, (
            "looked at each second"
        )
        box.interrupt(running)
        cluster.vm(["sudo", "sh", "-c", "echo; echo these are the last words >/dev/ttyS0"])
        logs = "vm0.console.log*"
        kept = wait_for(lambda: [log for log in scratch.glob(logs) if b"the last words" in log.read_bytes()], "these", 20)
        assert all(path.stat().st_size <= SIZE for path in kept)

        def free() -> int:
            return int(box.out(["stat", "-f", "-c", "%f", "/run"], user="root", node="n1"))

        before = free()
        fill = f"cd /run/pcocc/{cluster.job}; head -c 300M /dev/zero >fill; seq 70000 | xargs touch"
        done = box.run(["sh", "-c", fill], node="n1")
        assert re.search("No space left", done.stderr), done.stderr
        assert before - free() < 1000, "blocks of the node's own /run"
        assert box.run(["touch", f"/run/pcocc/{cluster.job}/one-more"], node="n1").returncode != 0
        box.run("srun -w n1 --pcocc-template=tiny true", user="bob", status=0, timeout=180)  # those of other users go on
        own = cluster.srun("--pcocc-vm=vm0 hostname")
        assert own.returncode != 0 and "No space left" in own.stderr, own.stderr
        box.run(["sh", "-c", f"cd /run/pcocc/{cluster.job}; rm fill; seq 70000 | xargs rm -f"], node="n1", status=0)
        assert cluster.vm("hostname") == "vm0"
    box.ensure_released(cluster.job)
