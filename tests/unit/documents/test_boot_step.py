"""The request to root's helper is checked before anything is done."""

import pytest

from pcocc_runtime.documents.boot_step import Charge, parse_boot_step
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.errors import NodeError

REQUEST = """job 12
step 1
uid 2001
gid 2001
stepd 999
index 1
layout n1 0-1
layout n2 2,3
sets default:3,gpu:1
end
"""


def test_a_request_is_parsed_whole() -> None:
    step = parse_boot_step(REQUEST.splitlines())
    assert (step.job, step.step, step.uid, step.index, step.vm_count) == (12, 1, 2001, 1, 4)
    assert step.here == NodeLayout("n2", (2, 3))
    assert [node.name for node in step.peers] == ["n1"]
    assert [step.set_of(rank) for rank in range(4)] == ["default"] * 3 + ["gpu"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("end\n", ""),
        ("job 12", "job 67108864"),
        ("job 12", "job -1"),
        ("job 12", "job ²"),
        ("job 12", "job " + "9" * 5000),
        ("layout n1 0-1", "layout n1 0-²"),
        ("layout n1 0-1", "layout n1 " + "9" * 5000),
        ("uid 2001\n", ""),
        ("uid 2001", "uid 2001\nuid 0"),
        ("index 1", "index 2"),
        ("layout n1 0-1", "layout ../n1 0-1"),
        ("layout n1 0-1", "layout n1 1-0"),
        ("layout n1 0-1", "layout n1 0-999999"),
        ("sets default:3,gpu:1", "sets default:3;rm"),
        ("sets default:3,gpu:1", "sets ../x:1"),
        ("sets default:3,gpu:1", "sets default:3,gpu:1:nic"),
        ("sets default:3,gpu:1", "sets default:3,gpu:1:nic:1"),
        ("sets default:3,gpu:1", "sets default:3,gpu:1::mlx5:1"),
        ("sets default:3,gpu:1", "sets default:3,gpu:1:nic:mlx5:100"),
        ("sets default:3,gpu:1", "sets default:3,gpu:1:nic:mlx5:x"),
        ("sets default:3,gpu:1", "sets default:3,gpu:1:nic:../x:1"),
    ],
)
def test_what_is_not_of_its_form_is_refused(old: str, new: str) -> None:
    assert old in REQUEST
    with pytest.raises(NodeError):
        parse_boot_step(REQUEST.replace(old, new).splitlines())


def test_what_slurmctld_tells_of_a_job_is_read() -> None:
    told = "account a b\npartition p\nqos \nlicenses pkey2001:1,x\ngres n1 nic:1(IDX:0)\ngres n2 gpu:1(IDX:1)\nsets"
    charge = parse_boot_step(REQUEST.replace("sets", told).splitlines()).charge
    assert charge == Charge("a b", "p", "", "pkey2001:1,x", ("n1 nic:1(IDX:0)", "n2 gpu:1(IDX:1)"))
    assert [charge.gres_on(name) for name in ("n1", "n2", "n3")] == ["nic:1(IDX:0)", "gpu:1(IDX:1)", ""]
