"""The queues that a guest uses, out of those that root hands over."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from pcocc_runtime.documents.queues import Queue

_NO_MODULE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)  # the kernel has no vhost_net, which no user needs to be told


@dataclass(frozen=True, slots=True)
class UsedQueues:
    """The queues of each interface, the descriptors `left` unused, and why /dev/vhost-net cannot be opened.

    `refused` is its errno, 0 when it can, or when its user need not know.
    """

    interfaces: tuple[tuple[Queue, ...], ...]
    left: tuple[int, ...]
    refused: int = 0

def plan_queues(handed: tuple[tuple[Queue, ...], ...], vcpus: int, model: str, accel: str) -> UsedQueues:
    """Return a queue for each vCPU, but a single one for a device that is not virtio's.

    With KVM, the kernel serves them (vhost) if it can serve all of them.
    """
    virtio = model.startswith("virtio")
    some = [queues[: vcpus if virtio else 1] for queues in handed]
    refused = [-one.vhost for queues in some for one in queues if one.vhost is not None and one.vhost < 0]
    vhost = virtio and accel == "kvm" and not refused
    used = tuple(tuple(one if vhost else Queue(one.tap) for one in queues) for queues in some)
    own = {fd for queues in used for fd in find_descriptors(queues)}
    left = tuple(fd for queues in handed for fd in find_descriptors(queues) if fd not in own)
    told = virtio and accel == "kvm" and refused and refused[0] not in _NO_MODULE
    return UsedQueues(used, left, refused[0] if told else 0)


def find_descriptors(queues: tuple[Queue, ...]) -> tuple[int, ...]:
    """Return the open descriptors of an interface."""
    return tuple(fd for one in queues for fd in one if fd is not None and fd >= 0)
