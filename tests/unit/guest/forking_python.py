"""Run by Debian's own python3: runs scripts with cloud-init loaded, each in a fork, until stdin ends.

Who asks sends its directory and the script with its arguments as JSON, with its stdin, stdout and stderr, and gets
the exit status (cloud_python.py).
"""

import importlib
import json
import os
import runpy
import select
import socket
import sys

for name in ("cloudinit.cmd.main", "cloudinit.config.schema", "jsonschema"):  # what the scripts would load
    importlib.import_module(name)


def answer(client: socket.socket) -> None:
    """Run one script in a child of ours, and tell its exit status."""
    text, streams, _flags, _address = socket.recv_fds(client, 1 << 16, 3)
    child = os.fork()
    if not child:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        directory, sys.argv = json.loads(text)
        os.chdir(directory)
        sys.path.insert(0, os.path.dirname(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    for stream in streams:
        os.close(stream)
    _pid, status = os.waitpid(child, 0)
    client.send(str(os.waitstatus_to_exitcode(status)).encode())


def serve(path: str) -> None:
    """Answer one after another; the end of stdin is the end of the tests."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while server in select.select([server, sys.stdin], [], [])[0]:
            client, _address = server.accept()
            with client:
                answer(client)


serve(sys.argv[1])
