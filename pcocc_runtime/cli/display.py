"""`pcocc display`: a VM's display at a unix socket that only its user can open, and in a viewer if there is one."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from pcocc_runtime import errors, terminal
from pcocc_runtime.cli.operating import JOB_HELP
from pcocc_runtime.documents.verbs import DISPLAY_VERB

VIEWER = "remote-viewer"
_KINDS = ("spice", "vnc")


def add_display(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc display`."""
    parser.description = (
        f"Opens the SPICE display of a VM in {VIEWER}. For a VNC display, or where there is no viewer or no screen, it "
        "prints the path of a socket where your other programs find the display, until the command is interrupted. "
        "The VM's template must set remote-display."
    )
    parser.add_argument("vm", metavar="VM", help="vm0, or vm0.JOB")
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)
    parser.set_defaults(run=_display)


def _display(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.login import find_job, find_vm
    from pcocc_runtime.slurm.steps import AS_BYTES, find_own_job, operation_argv, read_vm_step

    vm = find_vm(arguments.vm)
    job = find_own_job(find_job(arguments.job, [vm.job])).job
    status, said = read_vm_step(operation_argv(job, vm.vm, [DISPLAY_VERB, "--which"]))
    if status:
        return status
    kind = said.decode(errors="replace").strip()
    if kind not in _KINDS:
        raise errors.NodeError(
            f"the answer of {vm.vm}'s node about its display cannot be read",
            "check that it has the same version of pcocc",
        )
    with (
        tempfile.TemporaryDirectory(prefix="pcocc-display-") as directory,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = Path(directory, f"{vm.vm}.{job}.{kind}")
        listener.bind(str(path))
        listener.listen(8)
        viewer = _start_viewer(f"spice+unix://{path}") if kind == "spice" else None
        if viewer is None:
            terminal.say_note(f"the {kind} display of {vm.vm} is at {path} until Ctrl-C")
        return Gate(listener, operation_argv(job, vm.vm, [DISPLAY_VERB], streams=AS_BYTES), viewer).run()


def _start_viewer(uri: str) -> subprocess.Popen[bytes] | None:
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) or not shutil.which(VIEWER):
        return None
    return subprocess.Popen([VIEWER, uri], stdin=subprocess.DEVNULL)


class Gate:
    """Gives each connection to a socket an srun of its own, until the viewer ends or the user interrupts it."""

    def __init__(
        self, listener: socket.socket, argv: list[str], viewer: subprocess.Popen[bytes] | None
    ) -> None:
        self.listener, self.argv, self.viewer = listener, argv, viewer
        self.steps: list[subprocess.Popen[bytes]] = []

    def run(self) -> int:
        """Let connections in; return the exit status."""
        from pcocc_runtime.slurm.steps import operation_environment

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.listener.settimeout(0.5)
        try:
            while self.viewer is None or self.viewer.poll() is None:
                try:
                    connection, _address = self.listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    streams = connection.fileno()
                    step = subprocess.Popen(
                        self.argv,
                        stdin=streams,
                        stdout=streams,
                        env=operation_environment(),
                        start_new_session=True,
                    )
                    self.steps = [one for one in self.steps if one.poll() is None] + [step]
        except KeyboardInterrupt:
            pass
        finally:
            self._end()
        return 0

    def _end(self) -> None:
        for one in (*self.steps, *([self.viewer] if self.viewer else [])):
            if one.poll() is None:
                one.terminate()
            one.wait()
