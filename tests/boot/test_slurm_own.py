"""What Slurm itself does for steps works in VMs, too: srun's options, prologs, several programs, files, and the job's
variables.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.guest.environment import HOST_ONLY
from tests.boot.box import HOME, JOB_NAME, Box
from tests.boot.cluster import Cluster
from tests.waiting import wait_for


def put(name: str, text: str, mode: int = 0o755) -> Path:
    """Write a file that alice can run; the tests delete files whose names begin like this."""
    path = HOME / f"boottest-{name}"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def no_files() -> Iterator[None]:
    """Delete what a test has put into alice's home."""
    yield
    for path in [*HOME.glob("boottest-*"), *HOME.glob("slurm_bcast_*")]:  # srun leaves the latter itself
        path.unlink()


# --- options, as getopt reads them

SCRIPT = (
    "#!/bin/sh\n#SBATCH {}\nsrun -J name -l --pcocc-v hostname -n3 --pcocc-vm=vm0\nsrun -n1 -- echo --pcocc-vm=vm7"
    " --no-pcocc-vm\n"
)


@pytest.mark.parametrize("written", ["--pcocc-template=tiny:2", "--pcocc-temp tiny:2", "--job-name=x --pcocc-t=tiny:2"])
def test_lines_of_a_script_may_have_the_options(box: Box, written: str) -> None:
    script = put("lines.sh", SCRIPT.format(written).replace("hostname -n3", "echo -n3"))
    assert box.submit(["-J", JOB_NAME, f"--output={HOME}/boottest-lines.out", str(script)]) == 0
    said = [line for line in (HOME / "boottest-lines.out").read_text().splitlines() if not line.startswith(("pcocc:", "srun: "))]
    assert sorted(said) == ["--pcocc-vm=vm7 --no-pcocc-vm", "0: -n3 --pcocc-vm=vm0", "1: -n3 --pcocc-vm=vm0"]


def test_salloc_reads_its_own_options_only(box: Box) -> None:
    inner = "echo --pcocc-template=tiny:3; srun --pcocc-vm=vm[0-1] -n 2 -- echo --pcocc-vm=vm0"
    done = box.run(["salloc", "--quiet", "--pcocc-temp=tiny:2", "--", "sh", "-c", inner, "--pcocc-template=tiny:9"], status=0)
    assert done.stdout == "--pcocc-template=tiny:3\n" + "--pcocc-vm=vm0\n" * 2
    done = box.run(
        ["salloc", "--quiet", "sh", "-c", "echo $SLURM_SPANK_PCOCC_TEMPLATE-none $0", "--pcocc-template=tiny:9"],
        status=0,
    )
    assert done.stdout == "-none --pcocc-template=tiny:9\n"


@pytest.mark.parametrize(
    "words", [["--pcocc-vm", "vm0", "hostname"], ["--pcocc-v", "vm[0-1]", "hostname"], ["-n1", "--pcocc-vm", "vm2"]]
)
def test_vms_behind_a_space_are_told(cluster: Cluster, words: list[str]) -> None:
    done = cluster.srun(words)
    named = next(word for word in words if word.startswith("vm"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(
        f"pcocc: error: --pcocc-vm takes its VMs after an equals sign: write --pcocc-vm={named}\nhint: "
    )


def test_all_is_a_set_of_vms(cluster: Cluster) -> None:
    done = cluster.srun("-l --pcocc-vm=all hostname", status=0)
    assert sorted(done.stdout.splitlines()) == [f"{rank}: vm{rank}" for rank in range(len(done.stdout.splitlines()))]
    assert cluster.srun("-l --pcocc-vm hostname", status=0).stdout.count("vm") == done.stdout.count("vm")


def test_vms_behind_a_space_are_told_of_a_script(box: Box) -> None:
    before = box.job_count()
    script = put("x.sh", "#!/bin/sh\n# first\n\n#SBATCH --pcocc-template=tiny:2 --pcocc-vm vm1 # there\ntrue\n")
    for words, named in ((["--pcocc-template=tiny", "--pcocc-vm", "vm0", str(script)], "vm0"), ([str(script)], "vm1")):
        done = box.run(["sbatch", *words])
        assert done.returncode == 1 and f"write --pcocc-vm={named}\n" in done.stderr, done.stderr
    assert box.job_count() == before


@pytest.mark.parametrize(
    "line",
    ["srun --pcocc-template= hostname", "sbatch --pcocc-template= --wrap=hostname", "salloc --pcocc-template= true"],
)
def test_an_empty_template_is_told(box: Box, line: str) -> None:
    before = box.job_count()
    done = box.run(line)
    assert done.returncode == 1 and done.stderr.startswith("pcocc: error: --pcocc-template has no value\nhint: ")
    assert box.job_count() == before


# --- several programs

PROGRAMS = """# who does what
0   sh -c 'echo $0 $1 $(hostname)' %t %o
1-2 echo \\
    task %t offset %o
3   /bin/echo it\\'s me
"""


def test_each_task_runs_its_own_program(cluster: Cluster) -> None:
    put("programs", PROGRAMS, 0o644)
    done = cluster.srun("-l --multi-prog --pcocc-vm boottest-programs", status=0)
    on_nodes = cluster.srun("-l -n4 --multi-prog boottest-programs", status=0)
    wanted = sorted(on_nodes.stdout.replace("0 0 n1", "0 0 vm0").splitlines())
    assert sorted(done.stdout.splitlines()) == wanted and wanted[0] == "0: 0 0 vm0" and "task 2 offset 1" in wanted[2]


def test_a_variable_may_say_that_there_are_programs(cluster: Cluster) -> None:
    put("programs", "0 hostname\n1 sh -c 'exit 0'\n", 0o644)
    done = cluster.box.run(
        "srun -l --pcocc-vm=vm[2-3] boottest-programs", env={**cluster.environ, "SLURM_SRUN_MULTI": "yes"}, status=0
    )
    assert done.stdout == "0: vm2\n"


# --- prolog and epilog scripts

PROLOG = """#!/bin/sh
echo "print prolog of $SLURM_PROCID on $(hostname)"
echo "export MADE=by a prolog"
echo "export CHANGED=new"
echo "export TMPDIR=/tmp/of-$SLURM_JOB_ID"
echo "unset SLURM_JOB_GID"
echo "unset HOME"
"""
SAY = 'echo "$MADE|$CHANGED|${SLURM_JOB_GID-gone}|${HOME-gone}|$(ls -d $TMPDIR)|$(hostname)"'


@pytest.mark.parametrize("how", ["option", "variable"])
def test_what_a_task_prolog_says_reaches_the_command(cluster: Cluster, how: str) -> None:
    prolog = str(put("prolog.sh", PROLOG))
    env = {**cluster.environ, "CHANGED": "old", **({"SLURM_TASK_PROLOG": prolog} if how == "variable" else {})}
    words = [f"--task-prolog={prolog}"] if how == "option" else []
    done = cluster.box.run(["srun", *words, "--pcocc-vm=vm3", "sh", "-c", SAY], env=env, status=0)
    assert done.stdout.splitlines() == ["prolog of 0 on n2", f"by a prolog|new|gone|gone|/tmp/of-{cluster.job}|vm3"]


def test_a_task_prolog_serves_several_programs(cluster: Cluster) -> None:
    put("programs", "0 sh -c 'echo $MADE $0' %t\n1 sh -c 'echo $CHANGED $0' %t\n", 0o644)
    prolog = put("prolog.sh", PROLOG)
    done = cluster.srun(f"-l --multi-prog --task-prolog={prolog} --pcocc-vm=vm[0-1] boottest-programs", status=0)
    assert sorted(done.stdout.splitlines()) == ["0: by a prolog 0", "0: prolog of 0 on n1", "1: new 1", "1: prolog of 1 on n1"]


def test_a_task_prolog_that_fails_ends_the_task(cluster: Cluster) -> None:
    prolog = put("prolog.sh", "#!/bin/sh\nexit 9\n")
    done = cluster.srun(f"--task-prolog={prolog} --pcocc-vm=vm0 echo never")
    assert done.returncode == 9 and done.stdout == ""


def test_a_task_epilog_runs_on_the_node(cluster: Cluster) -> None:
    epilog = put("epilog.sh", f"#!/bin/sh\necho $SLURM_PROCID $(hostname) >>{HOME}/boottest-epilog.out\n")
    cluster.srun(f"--task-epilog={epilog} --pcocc-vm=vm[0,3] true", status=0)
    path = HOME / "boottest-epilog.out"
    wait_for(lambda: path.exists() and path.read_text().count("\n") == 2, "both epilogs")
    assert sorted(path.read_text().splitlines()) == ["0 n1", "1 n2"]


@pytest.fixture
def site_scripts(box: Box) -> Iterator[None]:
    """The site's own prolog and epilog of tasks, in slurm.conf."""
    put("prolog.sh", PROLOG)
    put("epilog.sh", f"#!/bin/sh\necho $SLURM_JOB_ID.$SLURM_STEP_ID >>{HOME}/boottest-epilog.out\n")
    lines = "".join(f"Task{name}={HOME}/boottest-{name.lower()}.sh\\n" for name in ("Prolog", "Epilog"))
    conf = "/etc/slurm/slurm.conf"
    do = f"cp -p {conf} {conf}.kept && printf '{lines}' >>{conf} && scontrol reconfigure"
    with box.changed(do, f"cat {conf}.kept >{conf} && rm {conf}.kept && scontrol reconfigure"):
        yield


def test_the_sites_scripts_of_tasks_run(cluster: Cluster, site_scripts: None) -> None:
    def step() -> str:
        return cluster.srun(["--pcocc-vm=vm3", "sh", "-c", SAY], status=0).stdout

    said = wait_for(lambda: (text := step()).startswith("prolog") and text, "a step with the site's prolog", 60)
    assert str(said).splitlines() == ["prolog of 0 on n2", f"by a prolog|new|gone|gone|/tmp/of-{cluster.job}|vm3"]
    wait_for(lambda: (HOME / "boottest-epilog.out").exists(), "the site's epilog")
    script = put("batch.sh", f"#!/bin/sh\n{SAY}\n")
    assert (
        cluster.box.submit(
            ["-J", JOB_NAME, "-o", f"{HOME}/boottest-batch.out", "--pcocc-template=tiny", "--pcocc-vm", str(script)]
        )
        == 0
    )
    told = (HOME / "boottest-batch.out").read_text()
    assert re.search(r"(?m)^by a prolog\|new\|gone\|gone\|/tmp/of-\d+\|vm0$", told), told


# --- the environment

SHOW = 'echo "$FOO|$BAR|$PCOCC_OWN|$SLURM_JOB_ID|$PCOCC_VM_NAME|$HOME|$PATH"'
EXPORTS = [
    "NONE", "NIL", "FOO", "FOO=5,BAR", "BAR='x,y'", "'BAR=x,y'", "ALL", "ALL,FOO=5", "ALL,NEW=1", "NOTHERE",
    "PATH=/bin:/odd",
]


@pytest.mark.parametrize("how", ["option", "variable"])
@pytest.mark.parametrize("export", EXPORTS)
def test_what_is_exported_reaches_the_command_as_on_a_node(cluster: Cluster, export: str, how: str) -> None:
    env = {
        **cluster.environ, "FOO": "1", "BAR": "2,3", "PCOCC_OWN": "own",
        **({"SLURM_EXPORT_ENV": export} if how == "variable" else {}),
    }
    words = ["srun", "-n1", *([f"--export={export}"] if how == "option" else [])]
    there, here = (
        cluster.box.out([*words, *where, "/bin/sh", "-c", SHOW], env=env).split("|") for where in (["--pcocc-vm=vm0"], ["-N1"])
    )  # fmt: skip
    assert there[:3] == here[:3] and there[3:6] == [str(cluster.job), "vm0", "/home/alice"]
    assert (there[6] == "/bin:/odd") == (export == "PATH=/bin:/odd") and "/opt/pcocc/bin" not in there[6]


def test_without_a_word_nothing_is_exported_but_slurms_and_ours(cluster: Cluster) -> None:
    done = cluster.box.run(
        ["srun", "--pcocc-vm=vm0", "sh", "-c", SHOW], env={**cluster.environ, "FOO": "1", "PCOCC_OWN": "own"}, status=0
    )
    assert done.stdout.split("|")[:3] == ["", "", "own"]


def test_limits_that_a_user_propagates_are_the_commands(cluster: Cluster) -> None:
    line = "ulimit -S -n 123; srun {} --pcocc-vm=vm0 sh -c 'ulimit -n'"
    said = [cluster.box.out(["sh", "-c", line.format(words)], env=cluster.environ) for words in ("--propagate=NOFILE", "")]
    assert said[0] == "123" and said[1] != "123"


OF_ONE_JOB = {"SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME"}


def test_a_batch_script_has_its_jobs_variables(box: Box) -> None:
    script, found = put("env.sh", "#!/bin/sh\nenv\n"), []
    for words in ([], ["--pcocc-vm"]):
        out = HOME / f"boottest-env{len(words)}.out"
        line = [
            "-J", JOB_NAME, "-o", str(out), "-N2", "--pcocc-template=tiny:2", *words, "--export=FOO=1,PCOCC_OWN=2",
            str(script),
        ]
        assert box.submit(line) == 0
        pairs = [line.partition("=") for line in out.read_text().splitlines() if not line.startswith("pcocc:")]
        found.append({name: value for name, _equals, value in pairs})
    here, there = found
    assert there["SLURM_JOB_NAME"] == JOB_NAME and there["SLURM_NTASKS"] == there["SLURM_NPROCS"] == "2"
    assert (there["SLURM_TASKS_PER_NODE"], there["SLURM_NNODES"], there["ENVIRONMENT"]) == ("1(x2)", "2", "BATCH")
    slurms = {
        name
        for name in here
        if name.startswith(("SLURM", "PCOCC", "FOO", "ENVIRONMENT")) and not name.startswith("SLURM_SPANK_")
    }
    assert slurms - set(there) <= HOST_ONLY
    ours = {"PCOCC_VM_NAME", "PCOCC_VM_RANK", "PCOCC_NODELIST", "PCOCC_HOSTFILE", "PCOCC_HOST_PORTS", "PCOCC_TASK"}
    assert {name for name in there if name.startswith(("SLURM", "PCOCC"))} - slurms <= ours
    assert {name: (here[name], there[name]) for name in slurms & set(there) - OF_ONE_JOB if here[name] != there[name]} == {}


def test_tasks_of_an_array_know_themselves(box: Box) -> None:
    script = put("array.sh", "#!/bin/sh\nsrun --pcocc-vm sh -c 'echo $SLURM_ARRAY_TASK_ID $SLURM_ARRAY_JOB_ID $(hostname)'\n")
    job = box.out([
        "sbatch", "--parsable", "-J", JOB_NAME, "--array=4-5", "-o", f"{HOME}/boottest-%a.out", "--pcocc-template=tiny",
        str(script),
    ])
    wait_for(
        lambda: not box.out(["squeue", "-h", "-j", job, "-t", "running,pending,completing"], user="root"),
        "the array's end", 180,
    )
    assert [(HOME / f"boottest-{task}.out").read_text().splitlines()[-1] for task in (4, 5)] == [
        f"{task} {job} vm0" for task in (4, 5)
    ]


# --- a job without a batch script or a shell

def test_a_job_without_a_shell_boots_by_its_number(box: Box) -> None:
    box.run(["salloc", "--no-sh", "--pcocc-t", "tiny:2", "-N2"], status=0)
    (job,) = box.jobs()
    try:
        done = box.run(f"srun --jobid={job} -l --pcocc-vm hostname", status=0)
        assert sorted(done.stdout.splitlines()) == ["0: vm0", "1: vm1"] and "booting 2 VMs" in done.stderr
        done = box.run("srun --pcocc-vm=vm1 hostname", env={"SLURM_JOB_ID": str(job)}, status=0)
        assert (done.stdout, done.stderr) == ("vm1\n", "")
        comment = re.search(r"AdminComment=pcocc-cluster=(\w+)", box.out(f"scontrol show job {job}"))
        assert comment and (HOME / ".pcocc/jobs" / comment[1]).stat().st_mode & 0o777 == 0o600
        done = box.run(f"srun --jobid={job} --pcocc-vm hostname", env={"HOME": "/tmp"}, status=0)
    finally:
        box.run(f"scancel {job}")
        box.ensure_released(job)


def test_a_job_whose_cluster_nobody_kept_is_told(box: Box, home: Path) -> None:
    box.run(["salloc", "--no-shell", "--pcocc-template=tiny"], env={"HOME": str(home)}, status=0)
    (job,) = box.jobs()
    try:
        done = box.run(f"srun --jobid={job} --pcocc-vm hostname")
        assert done.returncode == 1 and done.stderr.startswith(f"pcocc: error: no VMs of job {job} run\nhint: ")
    finally:
        box.run(f"scancel {job}")


# --- files

def test_a_file_that_srun_copies_is_in_the_vms(cluster: Cluster) -> None:
    program = put("program.sh", "#!/bin/sh\necho $0 $1. in $(hostname)\n")
    done = cluster.srun(f"--bcast=/tmp/copied --pcocc-vm=vm[0,3] {program} x", status=0)
    assert sorted(done.stdout.splitlines()) == ["/tmp/copied x. in vm0", "/tmp/copied x. in vm3"]
    assert cluster.vm("stat -c %a /tmp/copied") == "755"
    done = cluster.srun(f"--bcast --chdir={HOME} --pcocc-vm=vm0 {program}", status=0)
    assert re.fullmatch(rf"{HOME}/slurm_bcast_{cluster.job}\.\d+_n1 [.] in vm0\n", done.stdout)


def test_a_file_reaches_all_vms_by_sruns_input(cluster: Cluster) -> None:
    cluster.srun(["--pcocc-vm", "sh", "-c", "cat >/tmp/spread"], input="x" * 100_000, status=0)
    assert cluster.srun("--pcocc-vm wc -c /tmp/spread", status=0).stdout.split()[::2] == ["100000"] * 4


# --- what a shell would say

@pytest.mark.parametrize("command", ["bash", "./bash", "/opt/bash x"])
def test_a_command_that_a_guest_lacks_is_told_as_by_a_shell(cluster: Cluster, command: str) -> None:
    done = cluster.srun(f"--pcocc-vm=vm0 {command}")
    told = [line for line in done.stderr.splitlines() if not line.startswith("srun: error:")]
    assert done.returncode == 127 and told == [f"{command.split()[0]}: not found in vm0"]


def test_a_script_whose_interpreter_a_guest_lacks_is_told(box: Box) -> None:
    script = put("bash.sh", "#!/bin/bash\necho never\n")
    assert (
        box.submit(
            ["-J", JOB_NAME, "-o", f"{HOME}/boottest-bash.out", "--pcocc-template=tiny", "--pcocc-vm", str(script)]
        )
        == 127
    )
    assert "slurm_script: bad interpreter /bin/bash: not found in vm0\n" in (HOME / "boottest-bash.out").read_text()


# --- ends

def test_a_bad_exit_kills_the_other_tasks(cluster: Cluster) -> None:
    begin = time.monotonic()
    done = cluster.srun(["-K", "--pcocc-vm=vm[0,3]", "sh", "-c", "[ $SLURM_PROCID = 1 ] || exit 7; exec sleep 500"])
    assert done.returncode in (7, 137, 143) and time.monotonic() - begin < 200


def test_signals_that_a_command_may_take_reach_it(cluster: Cluster) -> None:
    names = ("ABRT", "URG", "XCPU", "TSTP", "CONT")
    traps = "; ".join(f"trap 'echo {name}' {name}" for name in names)
    script = f"{traps}; echo ready; while :; do sleep 0.2; done"
    started = cluster.start(["--pcocc-vm=vm0", "--overlap", "sh", "-c", script])
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    step = cluster.other_step()
    for name in names:
        cluster.box.run(["scancel", "-s", name, step])
        assert started.stdout.readline() == f"{name}\n"
    cluster.box.run(["scancel", step])
    assert cluster.box.finish(started).returncode != 0
