"""The steps that pcocc starts."""

from pcocc_runtime.slurm.steps import operation_argv


def test_an_operation_is_a_step_on_the_vms_node() -> None:
    argv = operation_argv(7, "vm3", ["@save", "--full"])
    assert argv[:3] == ["srun", "--jobid=7", "--overlap"] and argv[-3:] == ["--pcocc-vm=vm3", "@save", "--full"]
    assert {"--nodelist=n2", "--nodes=1", "--ntasks=1"} <= set(operation_argv(7, "vm3", ["@save"], "n2"))
