"""In a network namespace of its own: a tap with several queues as root opens them, and a QEMU that takes them; prints what it
says."""

import fcntl
import os
import struct
import subprocess
import sys

sys.path.insert(0, sys.argv[1])

from pcocc_runtime.documents.queues import Queue
from pcocc_runtime.qemu.arguments import Nic, VmPlan, plan_qemu_argv
from pcocc_runtime.qemu.qmp import render_command
from pcocc_runtime.qemu.topology import plan_flat

TAP_NO_PI_VNET_HDR_MULTI_QUEUE, TUNSETIFF = 0x5102, 0x400454CA  # linux/if_tun.h; as spank/netns.c has them
subprocess.run(["ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "user", "0", "vnet_hdr", "multi_queue"], check=True)
fds = []
for _queue in range(2):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tap0", TAP_NO_PI_VNET_HDR_MULTI_QUEUE))
    os.set_inheritable(fd, True)
    fds.append(fd)
plan = VmPlan("n", "00000000-0000-0000-0000-000000000001", "/usr/bin/qemu-system-x86_64", "tcg", plan_flat(2, "tests"), 128, "",
              0, "", "", "", "", nics=(Nic(tuple(map(Queue, fds)), "52:54:00:00:00:01", 1450),))  # fmt: skip
argv = plan_qemu_argv(plan)
netdev = argv.index("-netdev")
words = [argv[0], "-machine", "q35", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio", *argv[netdev : netdev + 4]]
asked = [render_command("qmp_capabilities"), render_command("query-rx-filter"), render_command("quit")]
done = subprocess.run(words, input=b"".join(asked), close_fds=False, capture_output=True, check=False)
sys.stdout.write(done.stdout.decode() + done.stderr.decode())
sys.exit(done.returncode)
