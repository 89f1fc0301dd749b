"""Virtual functions of the node for VMs, as a site has them: made and bound at the node's start, and counted by Slurm."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.node.node import Node, restart_slurm

MAKER, UNIT = "/srv/make-functions", "/etc/systemd/system/functions.service"
# NVMe: each function gets two queues and an interrupt of those that are not the controller's own (nvme-virt-mgmt(1))
_MAKE = """#!/bin/sh -e
for place in /sys/bus/pci/drivers/igb/*:* /sys/bus/pci/drivers/nvme/*:*; do
  [ -e "$place/sriov_numvfs" ] && [ "$(cat "$place/sriov_numvfs")" = 0 ] || continue
  echo 0 >"$place/sriov_drivers_autoprobe"
  for interface in "$place"/net/*; do [ ! -e "$interface" ] || ip link set "${interface##*/}" up; done
  echo 2 >"$place/sriov_numvfs"
  [ -e "$place/nvme" ] || continue
  for number in 1 2; do
    nvme virt-mgmt /dev/nvme0 --cntlid=$number --rt=0 --nr=2 --act=8
    nvme virt-mgmt /dev/nvme0 --cntlid=$number --rt=1 --nr=1 --act=8
    nvme virt-mgmt /dev/nvme0 --cntlid=$number --act=9
  done
done
"""
# the drivers of devices are loaded by udev, at the same time as other units begin
_UNIT = f"""[Unit]
Before=pcocc-devices.service
Wants=systemd-udev-settle.service
After=systemd-udev-settle.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={MAKER}
[Install]
WantedBy=multi-user.target
"""
_NETWORKS = """
fabric:
  type: sriov-ethernet
  settings: {{host-device: {interface}, gres: nic}}
"""
_SETS = """
fabric: {networks: [lan, fabric]}
"""
# igbvf is not in the guest's own kernel
_TEMPLATES = """
fabric:
  inherits: tiny
  resource-set: fabric
  kernel:
    path: /srv/images/vmlinux-node
    initrd: /srv/images/initrd-node
    append: APPEND
both: {inherits: fabric, devices: {nvme: 1}}
disk: {inherits: tiny, devices: {nvme: 1}}
reader: {inherits: tiny, devices: {nvme: 1}, image: /srv/images/reader.raw, kernel: null}
"""
_CONFIG = ("networks", "resources", "templates", "pcocc")


@dataclass(frozen=True)
class Functions:
    """Functions of which VMs have one each: their kind of GRES, and the files that lead to them, in Slurm's order."""

    gres: str
    files: tuple[str, ...]


def find_places(node: Node, driver: str) -> list[str]:
    """Return the addresses of the functions of the node's device with this driver."""
    return node.out(f"for one in /sys/bus/pci/drivers/{driver}/*:*/virtfn*; do basename $(readlink -f $one); done").split()


def begin(node: Node, *kinds: str) -> dict[str, Functions]:
    """Have the node make its functions, and give them to VMs of these kinds of GRES (nic, nvme); nothing of Slurm's runs."""
    for name in _CONFIG:
        node.out(f"cp -n /etc/pcocc/{name}.yaml /etc/pcocc/{name}.yaml.kept")
    node.out("for one in slurm gres; do cp -n /etc/slurm/$one.conf /etc/slurm/$one.conf.kept; done")
    node.write(MAKER, _MAKE)
    node.write(UNIT, _UNIT)
    node.out(f"chmod 755 {MAKER}; systemctl stop slurmd; systemctl daemon-reload; systemctl enable --quiet --now functions")
    interface = node.out("basename /sys/bus/pci/drivers/igb/*:*/net/*")
    pools = f"devices: {{nvme: {{addresses: {json.dumps(find_places(node, 'nvme'))}}}}}" if "nvme" in kinds else "devices: {}"
    templates = _TEMPLATES if "nvme" in kinds else "\n".join(line for line in _TEMPLATES.splitlines() if "nvme" not in line)
    append = re.search(r"(?m)^ +append: (.*)$", node.read("/etc/pcocc/templates.yaml"))
    assert append, "the kernel's command line in tests/machinelib/site/templates.yaml"
    templates = templates.replace("APPEND", append[1])
    texts = (_NETWORKS.format(interface=interface), _SETS, templates, pools)
    for name, text in zip(_CONFIG, texts, strict=True):
        kept = node.read(f"/etc/pcocc/{name}.yaml.kept")
        node.write(f"/etc/pcocc/{name}.yaml", f"{kept}\n{text}\n")
    node.out("pcocc config policy; touch /etc/slurm/job_submit.lua")
    node.out("systemctl enable --quiet pcocc-devices; systemctl restart pcocc-devices")
    shown = node.out("pcocc node devices")
    found = {one.gres: one for one in parse_gres(shown)}
    lines = shown.rpartition("gres.conf:\n")[2]
    assert set(found) == set(kinds), shown
    node.write("/etc/slurm/gres.conf", f"{node.read('/etc/slurm/gres.conf.kept')}\n{lines}\n")
    counted = "".join(f",{one.gres}:{len(one.files)}" for one in found.values())
    text = node.read("/etc/slurm/slurm.conf.kept")
    text = re.sub("(?m)^(NodeName=.* Gres=gpu:1)", rf"\g<1>{counted}", text)
    text = re.sub("(?m)^GresTypes=gpu", f"GresTypes=gpu,{','.join(found)}", text)
    node.write("/etc/slurm/slurm.conf", f"{text}\n")
    restart_slurm(node)
    return found


def parse_gres(shown: str) -> Sequence[Functions]:
    """Return what the lines of gres.conf that `pcocc node devices` prints are about."""
    return [Functions(name, tuple(files.split(","))) for name, files in re.findall(r"(?m)^Name=(\w+) File=(\S+)$", shown)]


def end(node: Node) -> None:
    """Undo `begin`: the functions are gone, and the site is as before. A job of a test that has failed ends before that."""
    node.out("scancel --user=alice; scancel --user=bob")
    node.wait_idle()
    node.out("systemctl stop slurmd; systemctl disable --quiet pcocc-devices functions")
    node.out(f"systemctl stop functions pcocc-devices; rm -f {MAKER} {UNIT}; systemctl daemon-reload")
    counts = "/sys/bus/pci/drivers/igb/*:*/sriov_numvfs /sys/bus/pci/drivers/nvme/*:*/sriov_numvfs"
    node.out(f"for one in {counts}; do [ ! -e $one ] || echo 0 >$one; done")
    node.out("for one in /etc/pcocc/*.kept /etc/slurm/*.kept; do mv $one ${one%.kept}; done")
    node.out("pcocc config policy; touch /etc/slurm/job_submit.lua")
    restart_slurm(node)


def owners(node: Node, functions: Functions) -> list[str]:
    """Return the owners of the files that lead to functions."""
    return node.out(["stat", "--format=%U", *functions.files]).split()
