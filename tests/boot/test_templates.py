"""What templates add to a VM, in real jobs: directories, users, whole nodes, persistent drives."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.boot.box import HOME, Box
from tests.boot.cluster import make_cluster
from tests.waiting import wait_for


@pytest.fixture
def shelf(box: Box) -> Iterator[Path]:
    """A directory of alice's, with a directory to export and an empty drive."""
    path = HOME / "boottest-shelf"
    path.mkdir(mode=0o755)
    (path / "work").mkdir()
    (path / "work/letter").write_text("from the host\n")
    with (path / "drive").open("wb") as drive:
        drive.truncate(8 << 20)
    for one in (path, *path.rglob("*")):
        shutil.chown(one, "alice", "alice")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def templates(shelf: Path) -> Iterator[dict[str, str]]:
    """Templates of alice's own, as the environment that names them."""
    drive = {str(shelf / "drive"): {"format": "raw"}}
    content = {
        "rooted": {"inherits": "tiny", "command-user": "root"},
        "whole": {"inherits": "tiny", "full-node": True},
        "lasting": {"inherits": "tiny", "command-user": "root", "persistent-drives": [drive]},
    }
    (shelf / "templates.yaml").write_text(yaml.safe_dump(content))
    yield {"PCOCC_USER_CONF_DIR": str(shelf)}


def test_exported_directories_are_mounted_and_read_only_ones_stay_so(box: Box, shelf: Path) -> None:
    work = shelf / "work"
    mounts = [f"--pcocc-mount=work={work},type=virtiofs", f"--pcocc-mount=look={work},type=virtiofs,readonly"]
    script = "cat /mnt/look/letter; echo from the guest >/mnt/work/answer; stat -c %U:%G /mnt/work/letter; ! echo no >/mnt/look/x"
    done = box.run(["srun", "--pcocc-template=tiny", *mounts, "sh", "-c", script], status=0, timeout=120)
    assert done.stdout.splitlines() == ["from the host", "alice:alice"]
    assert (work / "answer").read_text() == "from the guest\n" and (work / "answer").owner() == "alice"
    assert not (work / "x").exists()


def test_what_may_not_be_read_is_refused_before_a_job_is_made(box: Box, shelf: Path) -> None:
    (shelf / "work").chmod(0o700)
    shutil.chown(shelf / "work", "root", "root")
    before = box.jobs("all")
    done = box.run(["sbatch", "--pcocc-template=tiny", f"--pcocc-mount=work={shelf}/work", "--wrap", "true"])
    assert done.returncode != 0 and f"{shelf}/work" in done.stderr and "hint:" in done.stderr and "Traceback" not in done.stderr
    assert box.jobs("all") == before


def test_commands_run_as_the_user_a_template_names(box: Box, templates: dict[str, str]) -> None:
    done = box.run(["srun", "--pcocc-template=rooted", "id", "-un"], env=templates, status=0, timeout=120)
    assert done.stdout == "root\n"


@pytest.mark.alone
def test_a_whole_node_becomes_one_vm(box: Box, templates: dict[str, str]) -> None:
    done = box.run(["srun", "--pcocc-template=whole", "sh", "-c", "free -m"], env=templates, status=0, timeout=120)
    node = re.search(r"RealMemory=(\d+)", box.out("scontrol show node n1"))
    assert node and int(done.stdout.splitlines()[1].split()[1]) > int(node[1]) * 3 / 4


ENDS = {"the end of its job": "", "SIGTERM": "scancel --signal=TERM $0", "two scancels": "scancel $0; sleep 0.3; scancel $0"}


@pytest.mark.parametrize("how", ENDS)
def test_what_is_written_to_a_lasting_drive_is_there_in_the_next_job(box: Box, templates: dict[str, str], how: str) -> None:
    with make_cluster(box, "--pcocc-template=lasting", "-w", "n1", env=templates) as cluster:
        cluster.vm(f"printf '%s' 'kept over {how}.' >/dev/vdb")  # in the guest's page cache
        if ENDS[how]:
            box.run(["sh", "-ec", ENDS[how], str(cluster.job)], status=0)
            wait_for(lambda: not cluster.qemus(), "the end of the VM", 60)
    done = box.run(
        ["srun", "-w", "n1", "--pcocc-template=lasting", "head", "-c", "80", "/dev/vdb"], env=templates, status=0,
        timeout=120,
    )
    assert done.stdout.startswith(f"kept over {how}.")


def test_a_drive_is_saved_as_an_image_while_its_vm_writes_to_it(box: Box, templates: dict[str, str], shelf: Path) -> None:
    name = "boottest-drive"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", shelf / "drive"], check=True)
    box.run(["pcocc", "image", "delete", name])
    with make_cluster(box, "--pcocc-template=lasting", "-w", "n1", env=templates) as cluster:
        cluster.vm("mkdir /d && mount -t ext4 /dev/vdb /d && echo first >/d/file")  # --safe: not yet on the drive
        done = box.run(["pcocc", "save", "-j", str(cluster.job), "--drive=1", "-d", name, "--safe", "vm0"], env=templates)
        assert done.returncode == 0 and done.stdout.startswith(f"saved vm0 as user:{name}@0 ("), done.stderr
        assert cluster.vm("echo second >/d/file; sync; cat /d/file") == "second"
        done = box.run(["pcocc", "save", "-j", str(cluster.job), "--drive=1", "vm0"], env=templates)
        assert done.returncode == 1 and "name the new image with -d NAME" in done.stderr
    try:
        copy = shelf / "copy"
        box.run(["pcocc", "image", "export", name, str(copy), "-t", "raw"], status=0)
        assert b"first\n" in copy.read_bytes() and b"second\n" not in copy.read_bytes()
    finally:
        box.run(["pcocc", "image", "delete", name])


def test_a_drive_in_use_is_refused_to_another_job(box: Box, templates: dict[str, str], shelf: Path) -> None:
    with make_cluster(box, "--pcocc-template=lasting", "-w", "n1", env=templates):
        done = box.run(["srun", "-w", "n2", "--pcocc-template=lasting", "true"], env=templates, timeout=120)
        assert done.returncode != 0 and f"{shelf}/drive" in done.stderr and "Traceback" not in done.stderr


def test_a_directory_that_the_guest_cannot_mount_is_told_once_with_its_cure(box: Box, shelf: Path) -> None:
    """The kernel of the guest tiny is Debian's for clouds, which has no 9p."""
    mounts = [f"--pcocc-mount=old={shelf}/work", f"--pcocc-mount=new={shelf}/work,type=virtiofs"]
    done = box.run(["srun", "--pcocc-template=tiny:2", *mounts, "true"], status=0, timeout=120)
    notes = [line for line in done.stderr.splitlines() if "has not mounted" in line]
    assert (
        len(notes) == 1 and "has not mounted old: its kernel has no 9p: give the directory type=virtiofs" in notes[0]
    ), done.stderr
