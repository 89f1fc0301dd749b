"""The faults: what is done, when, and what must be true at once; what must be true after each of them is `scene.ensure_well`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.boot.box import HOME, Box
from tests.faults import hunt, scene
from tests.waiting import wait_for

Play = Callable[[Box], None]
LAUNCH, KEEPER, SAVE = (
    r"libexec/pcocc/launch",
    r"libexec/pcocc/keeper",
    r"libexec/pcocc/attach (@save )?--dest=",
)


class Fault(NamedTuple):
    """A fault, and the function that does it to a box where nothing runs and checks what is true at once."""

    name: str
    what: str
    when: str
    after: str
    play: Play


FAULTS: list[Fault] = []


def fault(what: str, when: str, after: str) -> Callable[[Play], Play]:
    """Make a function a fault, of the function's name."""

    def add(play: Play) -> Play:
        FAULTS.append(Fault(play.__name__.replace("_", "-"), what, when, after, play))
        return play

    return add


@fault("the user's srun killed", "while VMs boot", "its job can be cancelled")
def srun_killed_at_boot(box: Box) -> None:
    with scene.booting(box) as (started, job):
        scene.wait_for_qemus(box, job)
        started.kill()


@fault("the srun of a step killed", "while it runs", "the next step works")
def srun_of_a_step_killed(box: Box) -> None:
    with scene.booted(box) as cluster:
        step = cluster.start("--overlap --mem=0 -n1 --pcocc-vm=vm0 sh -c 'echo on; exec sleep 1000'")
        assert step.stdout is not None and step.stdout.readline() == "on\n"
        hunt.kill_when_seen(r"^srun .*--pcocc-vm=vm0 sh -c echo on", "login")
        box.finish(step, 60)
        cluster.vm("true", "vm1")


@fault("slurmstepd of the VMs killed", "while they boot", "told")
def stepd_killed_at_boot(box: Box) -> None:
    with scene.booting(box) as (started, job):
        scene.wait_for_qemus(box, job)
        hunt.kill_when_seen(rf"^slurmstepd: \[{job}[.][0-9]+\]", "n2")
        scene.told(box.finish(started, 90))


@fault("slurmstepd of the VMs killed", "while they run", "its VMs end")
def stepd_killed(box: Box) -> None:
    with scene.booted(box) as cluster:
        qemu = cluster.qemus()["vm1"]
        for one in scene.stepds(box, cluster.boot_step(), "n2"):
            box.kill(one, signal.SIGKILL)
        wait_for(lambda: not qemu.alive(), "the end of QEMU", 30)


@fault("launcher killed", "before it is QEMU", "told")
def launcher_killed(box: Box) -> None:
    with scene.booting(box) as (started, _job):
        hunt.kill_when_seen(LAUNCH, "n2")
        scene.told(box.finish(started, 120))


@fault("QEMU killed", "while its guest boots", "told")
def qemu_killed_at_boot(box: Box) -> None:
    with scene.booting(box) as (started, job):
        box.kill(scene.wait_for_qemus(box, job)["vm1"], signal.SIGKILL)
        scene.told(box.finish(started, 90))


@fault("QEMU killed", "while a step runs in it", "told; the other VM works")
def qemu_killed(box: Box) -> None:
    with scene.booted(box) as cluster:
        step = cluster.start("--overlap --mem=0 -n1 --pcocc-vm=vm1 sh -c 'echo on; exec sleep 1000'")
        assert step.stdout is not None and step.stdout.readline() == "on\n"
        box.kill(cluster.qemus()["vm1"], signal.SIGKILL)
        scene.told(box.finish(step, 90))
        cluster.vm("true", "vm0")


@fault("keeper killed", "while its guest boots", "the job can be cancelled")
def keeper_killed_at_boot(box: Box) -> None:
    with scene.booting(box) as (_started, job):
        hunt.kill_when_seen(rf'{KEEPER} .*"job": {job}, "rank": 1,', "n2")


@fault("keeper killed", "while the VM runs", "steps work")
def keeper_killed(box: Box) -> None:
    with scene.booted(box) as cluster:
        hunt.kill_when_seen(rf'{KEEPER} .*"job": {cluster.job}, "rank": 1,', "n2")
        cluster.vm("true", "vm1")


@fault("dnsmasq killed", "while the VMs run", "steps work")
def dnsmasq_killed(box: Box) -> None:
    with scene.booted(box) as cluster:
        hunt.kill_when_seen(rf"^dnsmasq .*{cluster.job}[.]dnsmasq", "n2")
        cluster.vm("true", "vm1")


@fault("root's helper killed", "in its set-up, as it runs nft", "told")
def helper_killed_in_setup(box: Box) -> None:
    with hunt.helper_killed(box, "setup", "/usr/sbin/nft", "n2"):
        scene.boot_fails(box)


@fault("root's helper killed", "in its set-up, as it runs ip", "told")
def helper_killed_in_setup_at_ip(box: Box) -> None:
    with hunt.helper_killed(box, "setup", "/usr/sbin/ip", "n2"):
        scene.boot_fails(box)


@fault("root's helper killed", "in its release", "the next set-up makes it good")
def helper_killed_in_release(box: Box) -> None:
    with hunt.helper_killed(box, "release", "/usr/sbin/nft", "n2"):
        scene.boot_works(box)
        wait_for(lambda: not box.jobs(), "the end of the job", 30)
        wait_for(lambda: box.root("n2", "/run/fault-done/once").exists(), "the release", 30)


@fault("root's planner killed", "in a set-up", "told, or over before it was needed")
def planner_killed(box: Box) -> None:
    with scene.booting(box) as (started, _job):
        pid = hunt.kill_when_seen(r"libexec/pcocc/node setup", "n2", number=0)
        hunt.kill_children(pid)
        box.finish(started, 240)


@fault("virtiofsd killed", "while it serves a guest", "the VM ends with the job")
def virtiofsd_killed(box: Box) -> None:
    with scene.booting(box, "--pcocc-mount=data=/home/alice,type=virtiofs") as (_started, _job):
        hunt.kill_when_seen(r"^\S*/virtiofsd ", "n2")


@fault(
    "the copier of an image cache killed", "as it copies", "the VM boots from another copy, or from the image"
)
def cache_copier_killed(box: Box) -> None:
    # from its beginning: the shell that has started the service names the copier too
    with scene.cached(box) as name, hunt.hunted(r"^/usr/bin/python3 \S+ \S*libexec/pcocc/cache", "n1"):
        scene.boot_works(box, f"--pcocc-image={name}")


@fault("image import killed", "as it stores", "nothing is left of it")
def image_import_killed(box: Box) -> None:
    started = box.start(["pcocc", "image", "import", "/var/lib/pcocc-box/images/tiny.qcow2", scene.IMAGE])
    hunt.kill_when_seen(r"bin/pcocc image import", "login")
    box.finish(started, 60)
    scene.forget(box, scene.IMAGE)


def _save_killed(box: Box, seen: str, kill: str = SAVE) -> None:
    with scene.booted(box) as cluster:
        node = cluster.node_of("vm1")
        before = (
            cluster.vm("dd if=/dev/urandom of=mark bs=64k count=64 2>/dev/null; sync; md5sum <mark", "vm1")
            if seen != "@"
            else ""
        )
        saver = box.start(["pcocc", "save", "-j", str(cluster.job), "-d", scene.IMAGE, "--full", "vm1"])
        if seen != "@":
            hunt.kill_when_seen(seen, node, number=0)
        hunt.kill_when_seen(kill, node)
        box.finish(saver, 120)
        if kill != "qemu-system":
            assert cluster.vm("md5sum <mark" if before else "true", "vm1") == before
    scene.forget(box, scene.IMAGE)


@fault("the saver killed", "as its save begins", "the VM runs on; nothing is stored")
def saver_killed_at_first(box: Box) -> None:
    _save_killed(box, "@")


@fault("the saver killed", "as it writes the layer", "the VM runs on; nothing is stored")
def saver_killed_as_it_copies(box: Box) -> None:
    _save_killed(box, r"qemu-img convert")


@fault("the VM's keeper killed", "during a save", "the VM runs on; nothing is stored")
def keeper_killed_in_a_save(box: Box) -> None:
    _save_killed(box, r"qemu-img convert", rf'{KEEPER} .*"rank": 1,')


@fault("qemu-img killed", "as a save writes the layer", "told; the VM runs on")
def qemu_img_killed_in_a_save(box: Box) -> None:
    _save_killed(box, r"qemu-img convert", r"qemu-img convert")


@fault("the job's part of /run full", "while VMs run", "VMs run, and end")
def own_run_full(box: Box) -> None:
    with scene.booted(box) as cluster:
        done = box.run(["sh", "-c", f"head -c 300M /dev/zero >{scene.OWN}/{cluster.job}/fill"], node="n1")
        assert "No space left" in done.stderr, done.stderr
        cluster.vm("true", "vm0")


@fault("the node's /run full", "before the set-up", "told")
def run_full(box: Box) -> None:
    used = "$(df --block-size=1k --output=used /run | tail -n 1)"  # the kernel refuses less
    do = f"mount -o remount,size=$(({used} + 4))k /run"
    with box.changed(do, "mount -o remount,size=50% /run", "n2"):
        scene.boot_fails(box)


@fault("scratch full", "before the VMs boot", "told")
def scratch_full_at_boot(box: Box) -> None:
    with box.changed(*scene.small(scene.SCRATCH, "16k"), "n2"):
        scene.boot_fails(box)


@fault("scratch full", "while a guest writes", "told; the job can be cancelled")
def scratch_full(box: Box) -> None:
    told, fill = HOME / ".faults-full", "dd if=/dev/urandom of=fill bs=1M count=30; sync"
    with box.changed(*scene.small(scene.SCRATCH, "12m"), "n2"):
        step = f"srun -w n2 --pcocc-template=tiny sh -c '{fill}' 2>{told}"
        try:
            box.run(
                [
                    "sh",
                    "-c",
                    f"{step} & while kill -0 $! && ! grep -q full {told}; do sleep 0.2; done; kill $!; wait $!",
                ],
                timeout=240,
            )
            assert "full" in told.read_text()
        finally:
            told.unlink(missing_ok=True)
        wait_for(lambda: not box.jobs(), "the end of the job", 60)


@fault("scratch read-only", "before the VMs boot", "told")
def scratch_read_only(box: Box) -> None:
    with box.changed(*scene.read_only(scene.SCRATCH), "n2"):
        scene.boot_fails(box)


@fault("the repository full", "as a VM is saved", "told; the VM runs on")
def repository_full(box: Box) -> None:
    _save_refused(box, *scene.small(scene.IMAGES, "8m"))


@fault("the repository read-only", "as a VM is saved", "told; the VM runs on")
def repository_read_only(box: Box) -> None:
    _save_refused(box, *scene.read_only(scene.IMAGES))


def _save_refused(box: Box, do: str, undo: str) -> None:
    with scene.booted(box) as cluster:
        with box.changed(f"{do}; chown alice: {scene.IMAGES} 2>/dev/null || :", undo, cluster.node_of("vm1")):
            scene.told(
                box.run(
                    ["pcocc", "save", "-j", str(cluster.job), "-d", scene.IMAGE, "--full", "vm1"], timeout=180
                )
            )
        cluster.vm("true", "vm1")


@fault("the image cache full", "before it copies", "VMs boot from the image itself")
def cache_full(box: Box) -> None:
    with scene.cached(
        box, f"mount -t tmpfs -o mode=755,size=1m cache {scene.CACHE}", f"umount -l {scene.CACHE}"
    ) as name:
        scene.boot_works(box, f"--pcocc-image={name}")


@fault("the image cache read-only", "before it copies", "VMs boot from the image itself")
def cache_read_only(box: Box) -> None:
    with scene.cached(
        box,
        f"mount --bind {scene.CACHE} {scene.CACHE}; mount -o remount,bind,ro {scene.CACHE}",
        f"umount -l {scene.CACHE}",
    ) as name:
        scene.boot_works(box, f"--pcocc-image={name}")


@fault("the site's firewall flushed (nft flush ruleset)", "while VMs run", "steps work")
def ruleset_flushed(box: Box) -> None:
    with scene.booted(box) as cluster:
        box.run(["nft", "flush", "ruleset"], user="root", node="n2", status=0)
        cluster.vm("true", "vm1")
    scene.restart("slurmd", "n2")  # which guards the tunnels again


@fault("munged gone", "as VMs boot, and back after a while", "the job ends one way or the other")
def munged_gone(box: Box) -> None:
    with scene.booting(box) as (started, job):
        scene.wait_for_qemus(box, job)
        scene.restart("munged")
        box.finish(started, 240)


@fault("slurmctld restarted", "while VMs run", "they are the same VMs, and steps work")
def slurmctld_restarted(box: Box) -> None:
    _restarted(box, "slurmctld")


@fault("slurmd restarted", "while VMs run", "they are the same VMs, and steps work")
def slurmd_restarted(box: Box) -> None:
    _restarted(box, "slurmd", "n2")


def _restarted(box: Box, *words: str) -> None:
    with scene.booted(box) as cluster:
        before = {name: one.pid for name, one in cluster.qemus().items()}
        scene.restart(*words)
        # for a minute slurmctld may tell steps that nodes are busy, also without us
        words_of_step = "--pcocc-vm=vm[0-1] --overlap --mem=0 --immediate=2 true"
        wait_for(lambda: cluster.srun(words_of_step).returncode == 0, "a step after the restart", 180)
        assert {name: one.pid for name, one in cluster.qemus().items()} == before


@fault("the clock jumps by four minutes, and back", "while VMs run", "they are the same VMs, and steps work")
def clock_jumped(box: Box) -> None:
    _jumped(box, 240)


@fault("the clock jumps back by four minutes, and forward", "while VMs run", "they are the same VMs, and steps work")
def clock_jumped_back(box: Box) -> None:
    _jumped(box, -240)


def _jumped(box: Box, seconds: float) -> None:
    """Let the clock jump for some seconds, by less than the five minutes that munge allows a message."""
    with scene.booted(box) as cluster:
        before = {name: one.pid for name, one in cluster.qemus().items()}
        with hunt.clock_jumped(seconds):
            time.sleep(4)  # the fault itself
        words = "--pcocc-vm=vm[0-1] --overlap --mem=0 --immediate=2 true"
        wait_for(lambda: cluster.srun(words).returncode == 0, "a step after the jump", 180)
        assert {name: one.pid for name, one in cluster.qemus().items()} == before


@fault("the clock jumps by seven minutes, and back", "while VMs run", "the job can be cancelled")
def clock_jumped_far(box: Box) -> None:
    with scene.booted(box) as cluster:
        with hunt.clock_jumped(420):  # by more than munge's five minutes
            time.sleep(4)  # the fault itself
        box.run(["scancel", str(cluster.job)], user="root")
    wait_for(lambda: not set(box.node_states().split()) & {"down", "down*", "unknown"}, "the nodes", 120)


@fault("the clock jumps by four minutes, and back", "while VMs boot", "they boot, and steps work")
def clock_jumped_at_boot(box: Box) -> None:
    with scene.booting(box) as (started, job):
        scene.wait_for_qemus(box, job)
        with hunt.clock_jumped(240):
            time.sleep(4)  # the fault itself
        done = box.finish(started, 240)
        assert done.returncode == 0, done.stderr


@fault("the controller does not answer for a minute", "as a job with VMs ends", "the job ends")
def controller_lost(box: Box) -> None:
    with scene.batch(box) as end:
        pid = hunt.kill_when_seen(r"/slurmctld\b", "login", number=signal.SIGSTOP)
        try:
            end()
            time.sleep(60)  # the fault itself
        finally:
            hunt.resume(pid)


@fault("a node's power lost, and the node back", "while VMs run", "the job is over; nothing of it is there")
def node_rebooted(box: Box) -> None:
    with scene.booted(box) as cluster:
        hunt.power_off("n2")
        hunt.power_on()
        box.run(["scancel", str(cluster.job)], user="root")
    wait_for(lambda: not set(box.node_states().split()) & {"down", "down*", "unknown"}, "the node", 90)


@fault("job killed (scancel --signal=KILL, then scancel)", "while VMs boot", "all ends")
def job_killed_at_boot(box: Box) -> None:
    with scene.booting(box) as (_started, job):
        scene.wait_for_qemus(box, job)
        box.run(["scancel", "--signal=KILL", str(job)], user="root")
