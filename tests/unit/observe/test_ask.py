"""`pcocc network` from the command line to srun and back, with programs that stand for Slurm's."""

import json
import os
import pwd
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents.node_answer import Failure, NodeAnswer, encode_node_answer
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.observe.ask import ask_nodes, find_target
from pcocc_runtime.slurm.text import Running, parse_running
from tests.unit.observe import netjob

STEP = (
    "StepId=12.0 UserId=1001 StartTime=2026-01-01T00:00:00 TimeLimit=UNLIMITED State=RUNNING Partition=vm NodeList=n[1-2] "
    "Nodes=2 CPUs=4 Tasks=4 Name={name} Network=(null) Dist=Block SrunHost:Pid=login:77\n"
)
JOB = "JobId=12 JobName=x UserId={user}({uid}) GroupId=g({gid}) MCS_label=N/A Priority=1 JobState=RUNNING NumNodes=2\n"
SCONTROL = """#!/bin/sh
case "$*" in
*"show job 12") cat {here}/job;;
*"show job 13") echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1;;
*"show job "*) echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1;;
*"show step 12") cat {here}/steps;;
*"show config") echo "SlurmctldHost[0]        = ctl(192.0.2.1)";;
esac
"""
SRUN = """#!/bin/sh
{{ id -u; env | sort; for word; do echo "$word"; done; }} >{here}/typed/srun
cat {here}/output
cat {here}/complaint >&2
exit $(cat {here}/status)
"""


class Slurm:
    """What the stand-ins say, in a directory that any user can read."""

    def __init__(self, here: Path) -> None:
        self.here = here
        (here / "typed").mkdir()
        (here / "typed").chmod(0o777)
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
            (here / name).write_text(text.format(here=here))
            (here / name).chmod(0o755)
        me = pwd.getpwuid(os.getuid())
        self.say(job=JOB.format(user=me.pw_name, uid=me.pw_uid, gid=me.pw_gid), steps=STEP.format(name="pcocc-vms"))
        self.say(output="", complaint="", status="0")
        self.answer(netjob.answer(1), netjob.answer(2))

    def say(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.here / name).write_text(text)

    def answer(self, *sent: NodeAnswer | Failure) -> None:
        self.say(output="".join(f"{line}\n" for task, one in enumerate(sent) for line in encode_node_answer(task, one)))

    def typed(self) -> list[str]:
        """Return srun's uid, environment and arguments, a line each."""
        return (self.here / "typed/srun").read_text().splitlines()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{name}:{os.environ['PATH']}")
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        yield Slurm(Path(name))


def test_one_step_asks_all_nodes(fake: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "9")
    monkeypatch.setenv("PCOCC_VM", "vm7")
    monkeypatch.setenv("SLURM_CONF", "/etc/some/slurm.conf")
    answers = ask_nodes("12", ["check", "192.0.2.1"])
    assert [one.node.name for one in answers.nodes] == ["n1", "n2"] and answers.silent == answers.failures == ()
    typed = fake.typed()
    assert {"--jobid=12", "--overlap", "--nodes=2", "--nodelist=n[1-2]", "--ntasks=2", "--ntasks-per-node=1", "--mem=0"} <= set(
        typed
    )
    assert typed[-4:] == ["--pcocc-vm=vm0", "@netinfo", "check", "192.0.2.1"]
    variables = {line for line in typed if line.startswith(("SLURM_", "PCOCC_"))}
    assert variables == {
        "SLURM_CONF=/etc/some/slurm.conf", "SLURM_JOB_ID=12", "SLURM_SPANK_PCOCC_TEMPLATE=any:1",
        "SLURM_PCOCC_PATIENCE=3", "SLURM_PCOCC_INSIDE=1",
    }  # fmt: skip


def test_root_asks_as_the_jobs_user(fake: Slurm) -> None:
    assert os.geteuid() == 0, "run the tests as root"
    fake.say(job=JOB.format(user="nobody", uid=65534, gid=65534))
    ask_nodes("12", ["show"])
    typed = fake.typed()
    assert typed[0] == "65534" and {"USER=nobody", "LOGNAME=nobody", "HOME=/"} <= set(typed)


def test_others_cannot_ask(fake: Slurm) -> None:
    fake.say(job=JOB.format(user="root", uid=0, gid=0))
    os.seteuid(65534)
    try:
        with pytest.raises(RequestError, match="job 12 is root's, and only that user and root can look into it"):
            ask_nodes("12", ["show"])
    finally:
        os.seteuid(0)
    assert not (fake.here / "typed/srun").exists()


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("13", "Slurm knows no running job 13"),
        ("14", "Unable to contact slurm controller"),
        ("x", "'x' is not the number of a job"),
        ("12; id", "'12; id' is not the number of a job"),
        ("--help", "'--help' is not the number of a job"),
        ("", "'' is not the number of a job"),
    ],
)
def test_a_job_that_cannot_be_asked_is_one_sentence(fake: Slurm, job: str, said: str) -> None:
    with pytest.raises(PcoccError) as caught:
        ask_nodes(job, ["show"])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"steps": ""}, "the VMs of job 12 are not running"),
        ({"steps": STEP.format(name="other")}, "the VMs of job 12 are not running"),
        ({"steps": "StepId=12.0 Name=pcocc-vms\n"}, "scontrol does not say on which nodes"),
        ({"job": JOB.format(user="a", uid=1, gid=1).replace("=12", "=13") * 2}, "12 is not a single job"),
        (
            {"output": "", "complaint": "srun: error: n1 is on fire\nsrun: more\n", "status": "1"},
            "no node of job 12 answers: srun: error: n1",
        ),
        ({"output": "", "status": "1"}, "no node of job 12 answers: srun ended without a message"),
    ],
)
def test_what_slurm_does_not_give_is_one_sentence(fake: Slurm, texts: dict[str, str], said: str) -> None:
    fake.say(**texts)
    with pytest.raises(PcoccError) as caught:
        ask_nodes("12", ["show"])
    assert said in str(caught.value) and caught.value.hint


def test_one_node_that_is_missing_is_told(fake: Slurm) -> None:
    fake.answer(netjob.answer(2))
    fake.say(complaint="srun: error: n1: task 0: Killed\n", status="1")
    answers = ask_nodes("12", ["show"])
    assert answers.silent == ("n1",) and answers.failures == ("srun: error: n1: task 0: Killed",)
    fake.answer(Failure("n1: the VMs of job 12 are not running on this node"), netjob.answer(2))
    answers = ask_nodes("12", ["show"])
    assert answers.silent == ("n1",) and answers.failures[1] == "n1: the VMs of job 12 are not running on this node"


def test_nodes_that_disagree_are_refused(fake: Slurm) -> None:
    fake.answer(netjob.answer(1), netjob.answer(2, node=netjob.facts(2, job=13)))
    with pytest.raises(NodeError, match="describe it differently"):
        ask_nodes("12", ["show"])


def test_a_target_outside_is_an_address(fake: Slurm) -> None:
    assert find_target(None) == "192.0.2.1"
    assert find_target("localhost") == "127.0.0.1"
    assert find_target("192.0.2.7:443") == "192.0.2.7:443"
    for wrong in ("", ":22", "192.0.2.7:0", "192.0.2.7:http", "192.0.2.7:", "a..b", "no.such.host.invalid"):
        with pytest.raises(RequestError, match="this host cannot be resolved"):
            find_target(wrong)


def test_array_tasks_are_jobs_of_their_own() -> None:
    shown = JOB.format(user="a", uid=1, gid=2).replace("JobId=12 ", "JobId=15 ArrayJobId=12 ArrayTaskId=3 ")
    found = parse_running("12_3", shown, STEP.format(name="pcocc-vms"))
    assert found == Running(15, "a", 1, 2, 2, "n[1-2]", boot="12.0-20260101000000")


def test_the_commands_print_and_their_status_says_whether_all_is_well(fake: Slurm, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["network", "show", "-j", "12"]) == 0
    assert capsys.readouterr().out.startswith("job 12: 4 VMs on 2 nodes\n")
    assert cli.main(["network", "show", "--job=12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vms"] == 4
    for lost, status in ((frozenset[int](), 0), (frozenset({3}), 1)):
        fake.answer(*(netjob.answer(number, reports=(replace(netjob.GOOD, lost=lost),), dhcp=True) for number in (1, 2)))
        assert cli.main(["network", "check", "-j", "12", "--outbound=192.0.2.7:443"]) == status
        assert fake.typed()[-2:] == ["check", "192.0.2.7:443"]
        assert ("answers none of the nodes" in capsys.readouterr().out) == bool(lost)
        assert cli.main(["network", "check", "-j", "12", "--json"]) == status
        assert json.loads(capsys.readouterr().out)["ok"] is not bool(lost)


def test_the_job_is_the_one_around(fake: Slurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["network", "show"]) == 1
    assert capsys.readouterr().err == "pcocc: error: which job? give -j JOB\nhint: squeue shows yours\n"
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert cli.main(["network", "show"]) == 0


def test_a_missing_node_is_on_stderr_too(fake: Slurm, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answer(netjob.answer(2))
    fake.say(complaint="srun: error: Node failure on n1\n")
    assert cli.main(["network", "show", "-j", "12"]) == 1
    out, err = capsys.readouterr()
    assert out.endswith("no answer from: n1\n") and err == "pcocc: note: srun: error: Node failure on n1\n"
