"""The parsers that meet foreign bytes: of users, of guests, of images that somebody else has made, and of those who
talk to root."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import struct
import subprocess
import tempfile
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pcocc_runtime.cli.template_text import render_one
from pcocc_runtime.documents import disks, members, save, vm, vm_events, vm_state
from pcocc_runtime.documents.boot_step import parse_boot_step
from pcocc_runtime.documents.cluster import Cluster, Group, decode_cluster, encode_cluster
from pcocc_runtime.documents.codec import render_document
from pcocc_runtime.documents.layer import decode_layer_request, decode_layer_state
from pcocc_runtime.documents.node import decode_node, encode_node
from pcocc_runtime.documents.node_answer import (
    _MARK,
    ANSWER_VERSION,
    Failure,
    NodeAnswer,
    _Sent,
    decode_node_answers,
)
from pcocc_runtime.documents.typed_options import TypedOptions
from pcocc_runtime.documents.verdict import decode_verdict
from pcocc_runtime.errors import ConfigError, NodeError, RequestError
from pcocc_runtime.guest.cloud_users import Identities
from pcocc_runtime.guest.script import parse_mount_look
from pcocc_runtime.guest.user_data import explain_in_file, parse_user_data
from pcocc_runtime.guest.user_data_judging import judge_user_data
from pcocc_runtime.images import formats, metadata, oci, qcow2, qcow2_tables, qemu_img_text, references
from pcocc_runtime.networks.settings import find_network_notes, parse_networks
from pcocc_runtime.qemu.qmp import Messages, parse_message
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.numbers import find_number_notes
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.site import original
from pcocc_runtime.site.policy import parse_policy
from pcocc_runtime.site.resource_sets import parse_resources
from pcocc_runtime.site.settings import PCOCC
from pcocc_runtime.submit.request import parse_request, parse_request_parts
from pcocc_runtime.templates import inherit
from tests.fake_node import make_facts
from tests.fuzz.engine import Target
from tests.lua.site import INTERPRETERS, ROOT, install_filter, write_policy


def _samples(*names: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for name in names for path in sorted(ROOT.glob(name)))


def run_settings(data: bytes) -> None:
    """Read a text as each of the files of a site, as a user's templates, and resolve those."""
    problems: list[ConfigError] = []
    tree = parse_yaml(data.decode(errors="replace"), "f", problems)
    networks = parse_networks(tree, problems)
    sets = parse_resources(tree, networks, problems)
    checks.read_mapping(tree, PCOCC, problems)
    references.parse_repos(tree, False, {"user": "alice"}, problems)
    templates = inherit.parse_templates(tree, False, problems)
    parse_policy(tree, templates, sets, problems)
    found = [inherit.resolve_known(templates, name, None, problems) for name in templates]
    texts = [*map(render_one, found), *map(str, problems), *find_network_notes(tree), *find_number_notes(tree)]
    assert all(isinstance(text, str) for text in texts)
    files = (*original.FILES, *original.GONE, "templates.d/a.yaml")
    done = original.plan_import(dict.fromkeys(files, tree), lambda path: f"{path}/image")
    assert yaml.dump(done.trees, Dumper=yaml.CSafeDumper) and all(map(str, done.fates))


def run_user_data(data: bytes) -> None:
    """Judge user-data, and make the sentences about it."""
    for told in judge_user_data(parse_user_data(data, "f"), Identities("alice", "debian")):
        error = explain_in_file("f", told)
        assert error.message and error.hint is not None


def run_image(data: bytes) -> None:
    """Read the head of an image as an import does."""
    size = len(data) * 7
    tail = data[-formats.TAIL_SIZE :]
    refused = _refused(lambda: formats.ensure_sound(formats.find_format(data, tail, "/image"), data, tail, size, "/image"))
    # its tables lie far apart
    _refused(lambda: formats.ensure_no_parent(lambda at, length: data[at % (len(data) or 1) :][:length], "/image"))
    if refused or data[:4] != qcow2.MAGIC:
        return
    _refused(lambda: qcow2.name_backing(data, "../data/" + "0" * 64, "/image"))
    entries = struct.unpack_from(">I", data, 36)[0]
    if entries < 4096:  # QEMU, which is asked before, takes no longer tables
        qcow2_tables.is_whole(data, size, lambda at, length: data[at : at + length].ljust(length, b"\0")[: 1 << 21])


def _refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except RequestError:
        return True
    return False


def run_oci(data: bytes) -> None:
    """Read a document of an OCI layout, and what is said of an image in a repository."""
    for read in (
        lambda: oci.choose_manifests(data, "latest", "x86_64", "index"),
        lambda: oci.choose_manifests(data, None, "x86_64", "index"),
        lambda: oci.parse_manifest(data, "manifest"), lambda: oci.is_index(data, "index"),
        lambda: metadata.parse_revision(data.decode(errors="replace"), "a@0", "a@0"),
    ):  # fmt: skip
        _refused(read)
    folder = oci.DiskFolder()
    for name in data.decode(errors="replace").split("/disk"):
        folder.take(f"disk{name}", False)
        folder.end_layer()


def run_lines(data: bytes) -> None:
    """Hear QEMU, a guest's agent, a saver and its guard, in pieces."""
    messages = Messages(longest=2000)
    for at in range(0, len(data), 100):
        for message in messages.feed(data[at : at + 100]):
            for decode in (save.decode_request, save.decode_answer):
                try:
                    decode(message)
                except ValueError:
                    pass
    parse_message(data)
    qemu_img_text.parse_progress(qemu_img_text.clean_line(data.decode(errors="replace")))
    qemu_img_text.parse_extent(data.decode(errors="replace"))
    parse_mount_look(data.decode(errors="replace"), {"a": "9p"})


def run_keeper(data: bytes) -> None:
    """Read what keepers and launchers leave for others."""
    text = data.decode(errors="replace")
    for decode in (vm_events.decode_event, vm_state.decode_state, vm.decode_vm, members.decode_members):
        try:
            decode(text)
        except ValueError:
            pass


def run_answers(data: bytes) -> None:
    """Read what a user's task tells root of networks, and what is left on nodes, or said by the image cache, for others."""
    text = data.decode(errors="replace")
    sent = base64.b64encode(zlib.compress(data, 1)).decode()
    found = decode_node_answers([*text.splitlines(), f"{_MARK} 7 {sent}", f"{_MARK} 7 ."])
    assert all(isinstance(one, NodeAnswer | Failure) for one in found)
    for decode in (
        lambda: decode_node(data, 1), lambda: decode_layer_state(parse_message(data)), lambda: decode_layer_request(data),
        lambda: disks.decode_disks(data, "vm0"),
    ):  # fmt: skip
        try:
            decode()
        except NodeError:
            pass
    decode_verdict(data)


def run_helper(data: bytes) -> None:
    """Read a request to root's helper."""
    parse_boot_step(data.decode(errors="surrogateescape").splitlines())


def run_request(data: bytes) -> None:
    """Read what was typed, and the document of a job, which its user may have changed."""
    text = data.decode(errors="surrogateescape")
    _refused(lambda: parse_request_parts(text))
    _refused(lambda: references.parse_reference(text))
    options = {"template": "a:2", "images": [text], "mounts": [text], "vm": text, "user_data": text}
    for name in options:
        one = TypedOptions("a:2")._replace(**{name: options[name]})
        _refused(lambda one=one: parse_request(one))
    _refused(lambda: decode_cluster(text))
    _refused(lambda: decode_cluster(base64.b64encode(zlib.compress(data, 1)).decode()))


@functools.cache
def _filter() -> subprocess.Popen[bytes]:
    with tempfile.TemporaryDirectory(prefix="pcocc-fuzz-") as place:
        directory = Path(place)
        argv = [
            INTERPRETERS[0], str(ROOT / "tests/fuzz/filter.lua"), str(install_filter(directory)),
            str(write_policy(directory)),
        ]
        lua = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        _submit(lua, _FILTER[0])  # it reads its policy when the first job comes
    return lua


def run_filter(data: bytes) -> None:
    """Give a job's strings to slurmctld's filter."""
    _submit(_filter(), data)


def _submit(lua: subprocess.Popen[bytes], data: bytes) -> None:
    assert lua.stdin is not None and lua.stdout is not None
    lua.stdin.write(data.hex().encode() + b"\n")
    lua.stdin.flush()
    said = lua.stdout.readline()
    assert said == b"ok\n", said


_MIME = (
    b"Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n"
    b"--b\nContent-Type: text/cloud-config; charset=\"utf-8\"\n"
    b"Content-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"a\"\n\n"
    + base64.encodebytes(b"users: [default]\n") + b"\n--b\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n"
    + base64.encodebytes(gzip.compress(b"#cloud-config\nruncmd: [a]\n", mtime=0)) + b"\n--b--\n"
)  # fmt: skip
_CONFIG = (
    b"#cloud-config\nusers:\n- default\n- {name: bob, groups: [a, b], sudo: ALL}\n"
    b"write_files:\n- path: /x\n  permissions: 0644\n  content: |\n    y\n"
)
_USER_DATA = (
    _CONFIG, _MIME,
    b"## template: jinja\n" + _CONFIG + b"{% if x %}\nuser: {name: {{ y }}}\n{% else %}\n"
    b"{# z #}{% raw %}a{% endraw %}{% endif %}\n",
    b"#cloud-config-archive\n- |\n  #cloud-config\n  a: 1\n"
    b"- {type: text/cloud-config, content: 'users: []', filename: x}\n- '#!/bin/sh'\n",
    b'#cloud-config-jsonp\n[{"op": "add", "path": "/users/-", "value": "x"}, {"op": "replace", "path": "/users", "value": []}]\n',
    b"#include\nhttp://a/b\n", b"# cloud-config\npackages: [vim]\n", base64.encodebytes(_CONFIG), gzip.compress(_CONFIG, mtime=0),
    b"#cloud-config\na: &a [1, *b]\nb: !!set {x}\n<<: {c: 010}\n"
    b"vendor_data: {enabled: no}\ngroups: {a: [b]}\nmerge_how: dict(replace)+list()\n",
)  # fmt: skip
_QCOW2 = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0x200, 8, 16, 1 << 30, 0, 2, 0x300, 0x10000, 1, 0, 0, 0, 0, 0, 4, 104)
_IMAGES = (
    _QCOW2.ljust(0x200, b"\0") + b"base.img".ljust(0x100, b"\0") + struct.pack(">QQ", 1 << 63 | 0x400, 0) + bytes(0x1000),
    b"KDMV" + struct.pack("<IIQQQQ", 1, 3, 1 << 21, 128, 1,
                          20) + bytes(468) + b"# Disk DescriptorFile\nparentCID=ffffffff\n".ljust(1024, b"\0"),
    b"vhdxfile" + bytes(1016),
    b"regi\0\0\0\0\1" + bytes(7) + uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le + bytes(512),
    bytes(64) + b"\x7f\x10\xda\xbe" + bytes(956),
    bytes(1024) + b"conectix" + bytes(40) + struct.pack(">QII", 1024, 0, 2) + bytes(448),
    b"\x1f\x8b" + bytes(600), bytes(257) + b"ustar" + bytes(600),
)  # fmt: skip
_BLOB: dict[str, Any] = {"digest": "sha256:" + "0" * 64, "size": 9, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
_OCI = (
    json.dumps({"schemaVersion": 2, "manifests": [{**_BLOB, "platform": {"architecture": "amd64", "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}).encode(),
    json.dumps({"schemaVersion": 2, "config": _BLOB, "layers": [_BLOB, _BLOB]}).encode(),
    json.dumps({"name": "a", "revision": 0, "kind": "vm", "owner": "alice", "timestamp": 1.0, "data_blobs": ["0" * 64]}).encode(),
)  # fmt: skip
_LINES = (
    b'{"QMP": {"version": {"qemu": {"major": 7}}}}\r\n'
    b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}\r\n',
    b'{"return": [{"cpu-index": 0, "thread-id": 7}], "id": "cpus"}\n\xff{"return": 17}\n{"error": {"class": "X", "desc": "y"}}\n',
    save.encode_request(save.QemuCommand("query-block", {})), b"12 % \r  (34.00/100%)\r", b"data\na !\n",
)  # fmt: skip
_KEEPER = (
    vm_events.encode_event(vm_events.Ready(1.5, "vm0", "n1")).encode(),
    vm_events.encode_event(vm_events.Silent(3, ["x"], "vm0", "n1")).encode(),
    vm_events.encode_event(vm_events.Unmounted("a", "9p", False, "vm0", "n1")).encode(),
    vm_state.encode_state(vm_state.VmState("ended", reason="killed")).encode(),
    members.encode_members(members.Members((("10.200.0.0/16", ((0, 2),)),), (), ((2, "alice"),), 2, (("n1", "0-1"),), 300)),
)  # fmt: skip
_HELPER = (
    b"job 7\nstep 0\nuid 1000\ngid 1000\nstepd 12\nindex 0\nlayout n1 0-1\nlayout n2 2,4-7\nsets default:2,gpu:6\n"
    b"account a\npartition p\nqos q\nend\n",
)
_REQUESTS = (
    b"tiny:2,big", b"tiny=/a/b=c", b"data=/x,type=9p,readonly", b"vm[0-1]", b"vm0,vm1", b"repo:image@3",
    encode_cluster(Cluster((Group("tiny", 2, user_data="#cloud-config\n"),))).encode(),
    zlib.decompress(base64.b64decode(encode_cluster(Cluster((Group("tiny", 2, cpus=4),))))),
)  # fmt: skip
_ANSWERS = (
    render_document(_Sent(Failure("no")), ANSWER_VERSION).encode(), b'{"state": "done", "message": "", "size": 5}',
    b'{"disks": [["/x", null]], "image": "/i", "origin": "r:i@0", "scratch": "/s"}',
    b'{"kind": "kvm", "why": "", "when": 1, "again": false, "key": [1]}',
    encode_node(make_facts({"bare": ()}, {"bare": 1})), b"pcocc-network 0 eJw=\npcocc-network 0 .\n",
)  # fmt: skip
_FILTER = (
    b"_SLURM_SPANK_OPTION_pcocc_pcocc-template=tiny:3,big:2\0vm\0physics\0normal",
    b"PCOCC_SIZE=vms=2;cpus=4;memory=512;exclusive=1;sets=default:2",
    b"_SLURM_SPANK_OPTION_pcocc_pcocc-template=tiny\0"
    b"PCOCC_SIZE=vms=1;cpus=1;memory=0;exclusive=0;sets=default:1,ib:2\0PCOCC_TEMPLATE=tiny:1",
)  # fmt: skip
TARGETS = {
    one.name: one
    for one in (
        Target("settings", _samples("etc/pcocc/*.yaml", "tests/data/original/*/*.yaml", "tests/boxlib/etc/*.yaml"),
               run_settings, (ConfigError,),
               (b"&a ", b"*a", b"<<: ", b"!!set ", b"!x ", b"- ", b": ", b"~", b"010", b"%{user}", b"inherits: ", b"null"),
               few=1000),
        Target("user-data", _USER_DATA, run_user_data, (RequestError,), (
            b"#cloud-config\n", b"users: ", b"user: ", b"name: alice", b"- |\n  ", b"{% if x %}", b"{% endif %}", b"{{",
            b"MIME-Version: 1.0\n",
            b"&a ", b"*a", b"<<: ", b"!!set ", b"!!timestamp ", b"!!binary ", b"ssh-authorized-keys: [x]", b"merge_how: ",
            b"groups: "), few=1000),
        Target("images", _IMAGES, run_image, (RequestError,), (b"QFI\xfb", b"KDMV", b"conectix", b"parentFileNameHint"),
               few=20000),
        Target("oci", _OCI, run_oci, (), (b"null", b"[]", b"{}", b"sha256:", b'"size": -1', b'"platform": '), few=10000),
        Target("lines", _LINES, run_lines, (), (b"null", b"[]", b'"id": ', b"\xff", b'"return": '), few=10000),
        Target("keeper", _KEEPER, run_keeper, (), (b"null", b"[]", b"{}", b"@pcocc ", b'"event": '), few=10000),
        Target("answers", _ANSWERS, run_answers, (), (
            b"null", b"[]", b"{}", b'"version": 1', b"\npcocc-network ", b" .\n", b"1e400"), few=5000),
        Target("helper", _HELPER, run_helper, (NodeError,), (
            b"end\n", b"layout ", b"sets ", b"-", b",", b"\xd9\xa3", b"\xc2\xb2"), few=20000),
        Target("requests", _REQUESTS, run_request, (), (b":", b",", b"=", b"vm[", b"@", b"\xd9\xa3", b"null"), few=5000),
        Target("filter", _FILTER, run_filter, (),
               (b"\0", b"=", b";", b":", b",", b"vms=", b"sets=", b"nan", b"0x10", b"1e9"), few=10000),
    )
}  # fmt: skip
