"""What the plugin reads from a command line before srun does, how it sizes the step by that, and that srun itself reads
the same.
"""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from pcocc_runtime.documents import wire, wire_steps
from tests.spank.building import ROOT, run

CLIENT = [ROOT / f"spank/{name}.c" for name in ("words", "sizing", "place", "programs", "variables", "options", "text")]
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PCOCC_"))}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the stand-in, `srun`, and the probe with a configuration of Slurm that loads it into the real one."""
    build = tmp_path_factory.mktemp("words")
    run("meson", "setup", str(build / "meson"))
    flags = ["-D_GNU_SOURCE", f"-I{build}/meson", "-Wall", "-Wextra", "-Werror"]
    run("cc", *flags, "-o", f"{build}/srun", f"{ROOT}/tests/spank/srun.c", *map(str, CLIENT), "-lslurm")
    for other in ("sbatch", "salloc"):
        (build / other).symlink_to("srun")
    run("cc", *flags, "-shared", "-fPIC", "-o", f"{build}/probe.so", f"{ROOT}/tests/spank/probe.c")
    (build / "plugstack.conf").write_text(f"required {build}/probe.so\n")
    (build / "slurm.conf").write_text(f"ClusterName=x\nSlurmctldHost=localhost\nPlugStackConfig={build}/plugstack.conf\n")
    return build


def read(build: Path, line: str, **environ: str) -> dict[str, object]:
    program, *words = shlex.split(line)
    found: dict[str, object] = json.loads(run(f"{build}/{program}", *words, env={**ENVIRON, **environ}))
    return found


# a line, and which options it has
LINES: list[tuple[str, dict[str, str]]] = [
    ("srun hostname", {}),
    ("srun", {}),
    ("srun --pcocc-template=tiny:2 hostname", {"template": "tiny:2"}),
    ("srun --pcocc-template tiny:2 hostname", {"template": "tiny:2"}),
    ("srun --pcocc-temp=tiny:2 hostname", {"template": "tiny:2"}),
    ("srun --pcocc-t tiny:2 hostname", {"template": "tiny:2"}),
    ("srun --pcocc-template=a --pcocc-template=b:3 hostname", {"template": "b:3"}),
    ("srun --pcocc-template= hostname", {"template": ""}),
    ("srun hostname --pcocc-template=tiny:3", {}),
    ("srun echo --pcocc-template=tiny:3 --pcocc-vm --no-pcocc-vm --jobid=7 -N2 -n 2", {}),
    ("srun -- --pcocc-template=tiny:3", {}),
    ("srun -n2 -- cmd --pcocc-vm", {"tasks": "2"}),
    ("srun --pcocc-vm -- cmd --pcocc-vm=vm1", {"vm": ""}),
    ("srun --pcocc-vm hostname", {"vm": ""}),
    ("srun --pcocc-v hostname", {"vm": ""}),
    ("srun --pcocc-vm vm1", {"vm": ""}),
    ("srun --pcocc-vm=vm[0-3,7] hostname", {"vm": "vm[0-3,7]"}),
    ("srun --no-pcocc-vm --pcocc-vm=vm0 hostname", {"vm": "vm0", "no_vm": "1"}),
    ("srun --no-p hostname", {"no_vm": "1"}),
    ("srun hostname --no-pcocc-vm", {}),
    ("srun --jobid=7 hostname", {"job": "7"}),
    ("srun --jobid 7 hostname", {"job": "7"}),
    ("srun --jobi=7 hostname", {"job": "7"}),
    ("srun --jobi 7 hostname --jobid=8", {"job": "7"}),
    ("srun hostname --jobid=7", {}),
    ("srun sh -c 'srun --jobid=7'", {}),
    ("srun -n2 hostname", {"tasks": "2"}),
    ("srun -n 2 hostname", {"tasks": "2"}),
    ("srun --ntasks=2 hostname", {"tasks": "2"}),
    ("srun --ntasks 2 -n3 hostname", {"tasks": "3"}),
    ("srun -lun 2 hostname", {"tasks": "2"}),
    ("srun -ln2 hostname", {"tasks": "2"}),
    ("srun -lu --pcocc-vm hostname", {"vm": ""}),
    ("srun -lu hostname --pcocc-vm", {}),
    ("srun -N 2 hostname", {"placed": "1"}),
    ("srun -N2 hostname", {"placed": "1"}),
    ("srun -lN2 hostname", {"placed": "1"}),
    ("srun -w n1 --pcocc-vm hostname", {"vm": "", "placed": "1"}),
    ("srun --nodelist=n1 hostname", {"placed": "1"}),
    ("srun --nodel n1 hostname --pcocc-vm", {"placed": "1"}),
    ("srun --ntasks-per-node=1 hostname", {"placed": "1"}),
    ("srun -m block hostname", {"placed": "1"}),
    ("srun --dist=block hostname", {"placed": "1"}),
    ("srun --spread-job hostname", {"placed": "1"}),
    ("srun hostname -N2", {}),
    ("srun -J name cmd --pcocc-vm", {}),
    ("srun -J -w --pcocc-vm cmd", {"vm": ""}),
    ("srun -Jname cmd --pcocc-vm", {}),
    ("srun --job-name -N2 --pcocc-vm cmd", {"vm": ""}),
    ("srun --job-name name --pcocc-vm cmd", {"vm": ""}),
    ("srun --pcocc-image x --pcocc-mount a=/b --pcocc-user-data f --pcocc-vm cmd", {"vm": ""}),
    ("srun --pcocc-image=--pcocc-vm cmd", {}),
    ("srun --pcocc-user-data f --pcocc-user-data-force --pcocc-vm cmd", {"vm": ""}),
    ("srun --pcocc-user-data-f --pcocc-vm cmd", {"vm": ""}),
    ("srun --pcocc-c d,at-end --pcocc-r d --pcocc-m a=/b --pcocc-i x --pcocc-vm cmd", {"vm": ""}),
    ("srun -Q -W5 -Xn2 --pcocc-vm cmd -n3", {"vm": "", "tasks": "2"}),
    ("srun --pcocc-vm=vm0 --pcocc-vm=vm1 -- cmd", {"vm": "vm1"}),
    ("srun -n2 -N1 -J --pcocc-vm -- cmd --pcocc-vm", {"tasks": "2", "placed": "1"}),
    ("srun --comment '--pcocc-vm --jobid=7' cmd", {}),
    ("srun -I5 -K --pcocc-vm cmd", {"vm": ""}),
    ("srun -K 0 --pcocc-vm cmd", {}),
    ("srun --overlap --pcocc-vm cmd", {"vm": ""}),
    ("srun --overlap yes --pcocc-vm", {}),
    ("srun --exclusive=user --mem 0 --pcocc-vm cmd", {"vm": ""}),
    ("srun - --pcocc-vm", {}),
    ("srun '' --pcocc-vm", {}),
    ("srun -c 2 --cpu-bind none --mem-per-cpu 100 -t 5 -p debug --pcocc-template a:2 cmd -c", {"template": "a:2"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "typed"), LINES, ids=[line for line, _typed in LINES])
def test_only_options_in_front_of_the_command_count(build: Path, line: str, typed: dict[str, str]) -> None:
    found = read(build, line)
    assert {key: found[key] for key in ("template", "vm", "job", "tasks", "no_vm", "placed") if key in found} == typed


@pytest.mark.parametrize(("line", "typed"), LINES, ids=[line for line, _typed in LINES])
def test_srun_reads_the_same(build: Path, line: str, typed: dict[str, str]) -> None:
    env = {**ENVIRON, "SLURM_CONF": f"{build}/slurm.conf"}
    found = json.loads(run(*shlex.split(line if " " in line else f"{line} true"), env=env))
    assert found == {key: value for key, value in typed.items() if key in ("template", "vm", "no_vm")}


@pytest.mark.thorough
def test_a_long_command_line_is_read_to_its_end(build: Path) -> None:
    command = ["--pcocc-template=a:5", "sh", "-c", "y" * 100_000, "--jobid=7"]
    for count in (1, 2, 20):
        line = shlex.join(["srun", *[f"--comment={'x' * 60_000}"] * count, *command])
        assert read(build, line)["template"] == "a:5" and "job" not in read(build, line)
    line = shlex.join(["srun", *["-l"] * 100_000, "--pcocc-template=a:5", "sh", *[""] * 100_000, "--jobid=7"])
    assert read(build, line)["template"] == "a:5" and "job" not in read(build, line)


@pytest.mark.parametrize("program", ["srun", "sbatch", "salloc"])
def test_the_options_of_this_slurm_are_known_with_their_values(build: Path, program: str) -> None:
    env = {**ENVIRON, "SLURM_CONF": f"{build}/slurm.conf", "PROBE_TABLE": "1"}
    *rows, letters = run(program, "true", env=env).splitlines()
    assert len(rows) > 90
    names = dict(row.rsplit(" ", 1) for row in rows)
    wrong = [
        name for name, has in names.items() if ("vm" in read(build, f"{program} --{name} x --pcocc-vm")) != (has == "1")
    ]
    wrong += [
        letter
        for letter, colons in re.findall(r"(\w)(:*)", letters)
        if ("vm" in read(build, f"{program} -{letter} x --pcocc-vm")) != (colons == ":")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "vm"),
    [
        ("srun --container-image=x --pcocc-vm cmd", ""), ("srun --of-a-plugin x --pcocc-vm cmd", ""),
        ("srun --of-a-plugin --pcocc-vm cmd", ""), ("srun --of-a-plugin=x cmd --pcocc-vm", None),
        ("srun --of-a-plugin x cmd --pcocc-vm", None), ("srun --of-a-plugin -- --pcocc-vm", None),
    ],
)  # fmt: skip
def test_an_option_of_another_plugin_may_have_a_value(build: Path, line: str, vm: str | None) -> None:
    assert read(build, line).get("vm") == vm


IN_JOB = {"SLURM_JOB_ID": "5", wire.ENV_TEMPLATE: "tiny:4", "SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2", "BOOT": "4:2"}
OUTSIDE: dict[str, str] = {}


# a line, where it is typed, and how many tasks srun is told to make (None: not told)
@pytest.mark.parametrize(
    ("line", "environ", "tasks"),
    [
        ("srun --pcocc-template=tiny:3 cmd", OUTSIDE, "3"),
        ("srun --pcocc-template=tiny:3,big cmd", OUTSIDE, "4"),
        ("srun --pcocc-template=tiny:x cmd", OUTSIDE, None),
        ("srun --no-pcocc-vm --pcocc-template=tiny:3 cmd", OUTSIDE, "3"),
        ("srun cmd --pcocc-template=tiny:3", OUTSIDE, None),
        ("srun cmd", {wire_steps.VAR_TEMPLATE: "tiny:2"}, "2"),
        ("srun cmd --pcocc-template=tiny:3", {wire_steps.VAR_TEMPLATE: "tiny:2"}, "2"),
        ("srun --pcocc-template=tiny:3 cmd", {wire_steps.VAR_TEMPLATE: "tiny:2"}, "3"),
        ("srun cmd", {wire_steps.VAR_TEMPLATE: "", wire_steps.VAR_VM: ""}, None),
        ("srun --jobid=7 --pcocc-vm cmd", {"BOOT": "6:2"}, "6"),
        ("srun --jobid=7 --pcocc-vm cmd", {"BOOT": "0:0"}, None),
        ("srun --jobid=7 --pcocc-vm cmd", OUTSIDE, None),
        ("srun --jobid=7 --pcocc-vm cmd", {"BOOT": "0:0", "KEPT": "tiny:3"}, "3"),
        ("srun --jobid=7 --pcocc-vm cmd", {"BOOT": "6:2", "KEPT": "tiny:3"}, "6"),
        ("srun --jobid=7 cmd", {"BOOT": "0:0", "KEPT": "tiny:3"}, None),
        ("srun --jobid=7 --pcocc-vm cmd", {**IN_JOB, "BOOT": "0:0", "KEPT": "tiny:3"}, "3"),
        ("srun --pcocc-vm cmd", {"SLURM_JOB_ID": "7", "BOOT": "0:0", "KEPT": "tiny:3"}, "3"),
        ("srun --pcocc-vm cmd", {"SLURM_JOB_ID": "7", "BOOT": "6:2"}, "6"),
        ("srun --jobid=7 cmd", {"BOOT": "6:2"}, None),
        ("srun --jobid=7 cmd", {"BOOT": "6:2", wire_steps.VAR_TEMPLATE: "tiny:2"}, None),
        ("srun --pcocc-vm cmd --jobid=7", {"BOOT": "6:2"}, None),
        ("srun cmd --jobid=7 --pcocc-vm", {"BOOT": "6:2", wire_steps.VAR_TEMPLATE: "tiny:2"}, "2"),
        ("srun cmd", IN_JOB, None),
        ("srun cmd --pcocc-vm", IN_JOB, None),
        ("srun -n2 -- cmd --pcocc-vm", IN_JOB, None),
        ("srun --pcocc-vm cmd", IN_JOB, "4"),
        ("srun --pcocc-vm --no-pcocc-vm cmd", IN_JOB, None),
        ("srun --pcocc-vm=vm[1,3] cmd", IN_JOB, "2"),
        ("srun --pcocc-vm=vm[1,3,1] cmd", IN_JOB, "2"),
        ("srun --no-pcocc-vm --pcocc-vm=vm[1,3] cmd", IN_JOB, None),
        ("srun cmd", {**IN_JOB, wire_steps.VAR_VM: "1"}, "4"),
        ("srun cmd", {**IN_JOB, wire_steps.VAR_VM: ""}, None),
        ("srun --no-pcocc-vm cmd", {**IN_JOB, wire_steps.VAR_VM: "1"}, None),
        ("srun cmd --no-pcocc-vm", {**IN_JOB, wire_steps.VAR_VM: "1"}, "4"),
        ("srun cmd", {**IN_JOB, wire_steps.VAR_VM: "vm2"}, "1"),
        ("srun cmd --pcocc-vm=vm[0-2]", {**IN_JOB, wire_steps.VAR_VM: "vm2"}, "1"),
        ("srun cmd", {**IN_JOB, wire_steps.VAR_TEMPLATE: "tiny:2"}, None),
        ("srun --jobid=5 --pcocc-vm cmd", {**IN_JOB, "BOOT": "6:2"}, "4"),
        ("srun --jobid=7 --pcocc-vm cmd", {**IN_JOB, "BOOT": "6:2"}, "6"),
        ("srun --pcocc-vm cmd --jobid=7", {**IN_JOB, "BOOT": "6:2"}, "4"),
    ],
)  # fmt: skip
def test_srun_gets_a_task_for_each_vm(build: Path, line: str, environ: dict[str, str], tasks: str | None) -> None:
    found = read(build, line, **environ)
    assert found.get("SLURM_NTASKS") == found.get("SLURM_NPROCS") == tasks


def test_options_of_the_job_are_not_those_of_its_steps(build: Path) -> None:
    sent = {f"SLURM_SPANK__{wire_steps.SENT_OPTION}{name}": "x" for name in ("pcocc_vm", "pcocc_template", "no_pcocc_vm")}
    found = read(build, "srun cmd", **sent, SLURM_SPANK__SLURM_SPANK_OPTION_other_vm="kept")
    assert found["inherited"] == "SLURM_SPANK__SLURM_SPANK_OPTION_other_vm=kept"


def test_a_number_of_tasks_that_salloc_was_given_stays(build: Path) -> None:
    assert read(build, "srun --pcocc-vm cmd", **IN_JOB, SLURM_NTASKS="3")["SLURM_NTASKS"] == "3"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("vm0", "vm0"), ("vm[0-3,7]", "vm[0-3,7]"), ("vm0,vm2", "vm0,vm2"), ("=vm0", "vm0"), ("all", "all"), ("=all", "all"),
        ("vm", None), ("vmstat", None), ("./vm0", None), ("all.sh", None), ("=", None), ("vm0.sh", None), ("hostname", None),
    ],
)  # fmt: skip
def test_a_word_behind_the_option_may_be_meant_as_its_value(build: Path, word: str, meant: str | None) -> None:
    found = read(build, f"srun --pcocc-vm '{word}' cmd")
    assert (found["vm"], found["command"], found.get("set")) == ("", word, meant)


@pytest.mark.parametrize(
    ("line", "leaves"),
    [
        ("salloc --pcocc-template=tiny --no-shell", True), ("salloc --no-sh --pcocc-template=tiny", True),
        ("salloc -n2 cmd", False), ("salloc --job-name --no-shell cmd", False),
        ("salloc --pcocc-template=tiny cmd --no-shell", False), ("salloc -n2 -- cmd --no-shell", False), ("salloc --no-", False),
    ],
)  # fmt: skip
def test_a_job_is_left_by_an_option_and_not_by_a_word_of_the_command(build: Path, line: str, leaves: bool) -> None:
    assert ("no_shell" in read(build, line)) == leaves


@pytest.mark.parametrize(
    ("line", "environ", "other"),
    [
        ("srun --jobid=7 cmd", OUTSIDE, 7), ("srun --jobid=7 cmd", IN_JOB, 7), ("srun --jobid=5 cmd", IN_JOB, 0),
        ("srun cmd", IN_JOB, 0), ("srun cmd --jobid=7", OUTSIDE, 0), ("srun cmd --jobid=7", IN_JOB, 0),
        ("srun --jobid=x cmd", OUTSIDE, 0),
        ("srun --jobid=5_3 cmd", {**IN_JOB, "JOBS": "9 5_3"}, 9), ("srun --jobid=5+1 cmd", {**IN_JOB, "JOBS": "6 5+1"}, 6),
        ("srun --jobid=5_4 cmd", {**IN_JOB, "JOBS": "9 5_3"}, 0), ("srun --jobid=5_1 cmd", {**IN_JOB, "JOBS": "6 5+1"}, 0),
        ("srun --jobid=6_3 cmd", {**IN_JOB, "JOBS": "9 5_3"}, 0), ("srun --jobid=5_3x cmd", {**IN_JOB, "JOBS": "9 5_3"}, 0),
        ("srun --jobid=7_3 cmd", IN_JOB, 0), ("srun --jobid=7_ cmd", IN_JOB, 0), ("srun --jobid=7.0 cmd", IN_JOB, 0),
        ("srun --jobid=4_1 cmd", {**IN_JOB, "JOBS": "5 4_1"}, 0),
    ],
)  # fmt: skip
def test_the_job_of_a_step_is_the_one_in_front_of_the_command(
    build: Path, line: str, environ: dict[str, str], other: int
) -> None:
    found = read(build, line, **environ)
    assert (found["in_job"], found["other"]) == (int(bool(other or environ)), other)


@pytest.mark.parametrize(
    ("line", "environ", "vms"),
    [
        ("srun --pcocc-vm cmd", OUTSIDE, 0), ("srun --jobid=x --pcocc-vm cmd", OUTSIDE, 0),
        ("srun --pcocc-vm cmd", {"SLURM_JOB_ID": ""}, 0), ("srun --jobid=7 --pcocc-vm cmd", OUTSIDE, 6),
        ("srun --pcocc-vm cmd", {"SLURM_JOB_ID": "7"}, 6),
    ],
)  # fmt: skip
def test_outside_of_jobs_the_vms_of_others_are_nobodys(build: Path, line: str, environ: dict[str, str], vms: int) -> None:
    """Slurm lists the steps of all jobs when it is asked for those of job 0."""
    assert read(build, line, **{"BOOT": "6:2", "KEPT": "tiny:6", **environ})["vms"] == vms


@pytest.mark.parametrize(
    ("line", "places"),
    [
        ("srun --pcocc-vm=vm3 cmd", "n2 "), ("srun --pcocc-vm=vm[1-2] cmd", "n1 n2 "),
        ("srun -n1 --pcocc-vm=vm3 cmd -N2 -w n1", "n2 "), ("srun -lu -J w --pcocc-vm=vm0 cmd -n 5", "n1 "),
        ("srun --mem 0 --pcocc-vm=vm0 cmd", "n1 "), ("srun --pcocc-vm=vm[0-3] cmd", None), ("srun --pcocc-vm cmd", None),
        ("srun -n2 --pcocc-vm=vm3 cmd", None), ("srun -w n1 --pcocc-vm=vm3 cmd", None),
        ("srun -N1 --pcocc-vm=vm3 cmd", None), ("srun --pcocc-vm=vm9 cmd", None),
        ("srun -lm block --pcocc-vm=vm3 cmd", None), ("srun --jobid=7 --pcocc-vm=vm3 cmd", "n2 "),
        ("srun --jobid=5 --pcocc-vm=vm3 cmd", "n2 "), ("srun cmd --pcocc-vm=vm3", None),
    ],
)  # fmt: skip
def test_a_step_goes_where_its_vms_are(build: Path, line: str, places: str | None) -> None:
    found = read(build, line, **IN_JOB)
    assert found.get("places") == places
    assert found.get("SLURM_DISTRIBUTION") == ("arbitrary" if places else None)
    assert not places or found["SLURM_NNODES"] == str(len(set(places.split())))


def test_a_step_in_another_job_goes_there_whatever_the_size_of_this_one(build: Path) -> None:
    here = {**IN_JOB, "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1"}
    assert "places" not in read(build, "srun --pcocc-vm=vm3 cmd", **here)
    assert read(build, "srun --jobid=7 --pcocc-vm=vm3 cmd", **here)["places"] == "n2 "


@pytest.mark.parametrize("name", [f"SLURM_{name}" for name in (
    "HOSTFILE", "DISTRIBUTION", "NTASKS_PER_NODE", "NTASKS_PER_GPU", "NTASKS_PER_TRES", "SPREAD_JOB", "USE_MIN_NODES", "HET_SIZE",
)])  # fmt: skip
def test_who_says_where_in_a_variable_is_left_alone(build: Path, name: str) -> None:
    assert read(build, "srun --pcocc-vm=vm3 cmd", **IN_JOB, **{name: "/dev/null"}).get("places", "") == ""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("srun --pcocc-vm cmd a", {"command": "cmd"}), ("srun --pcocc-vm vm0 cmd", {"command": "vm0"}),
        ("srun -n2 -- cmd", {"command": "cmd"}), ("srun", {}),
        ("srun --export=A,B=1 cmd", {"command": "cmd", "export": "A,B=1"}),
        ("srun --export ALL cmd", {"command": "cmd", "export": "ALL"}),
        ("srun --exp NONE cmd --export=ALL", {"command": "cmd", "export": "NONE"}),
        ("srun --multi-prog conf", {"command": "conf", "programs": "1"}),
        ("srun --bcast cmd", {"command": "cmd", "bcast": "1"}),
        ("srun --bcast=/tmp/x cmd", {"command": "cmd", "bcast": "1"}),
        ("srun cmd --multi-prog --bcast", {"command": "cmd"}), ("srun --bcast-exclude=/x cmd", {"command": "cmd"}),
    ],
)  # fmt: skip
def test_what_srun_makes_of_a_command_is_known(build: Path, line: str, found: dict[str, str]) -> None:
    read_here = read(build, line)
    assert {key: read_here[key] for key in ("command", "export", "bcast", "programs") if key in read_here} == found


def test_a_client_is_in_front_of_each_program(build: Path) -> None:
    attach = "/opt/pcocc/libexec/pcocc/attach"
    lines = ["# all of them", "", "0-1  ./server %t", "  2,3\t/bin/sh -c \\", "'echo %o'", "*", "4 a \\", "b \\", "c", "5 d"]
    lines += ["# e \\", "", "6 f"]
    wanted = [
        *lines[:2], f"0-1  {attach} ./server %t", f"  2,3\t{attach} /bin/sh -c \\", "'echo %o'", "*",
        f"4 {attach} a \\", "b \\", "c",
        f"5 {attach} d", "# e \\", "", "6 f",
    ]  # fmt: skip
    for end in ("", "\n"):
        text = run(f"{build}/srun", env={**ENVIRON, "PROGRAMS": "\n".join(lines) + end})
        assert text == "\n".join(wanted) + end
