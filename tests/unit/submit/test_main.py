"""The check at submission: what it answers, and that every mistake is one sentence, before any job exists."""

import grp
import os
import pwd
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcocc_runtime.documents import wire_steps
from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.submit import freeze
from pcocc_runtime.submit import main as client
from pcocc_runtime.templates.settings import SETTINGS
from tests.unit.fake_site import (
    Ask,
    frozen,
    noted,
    refused,
    user_template,
    write_image,
    write_images,
    write_site,
)


def test_the_answer_sizes_the_job(ask: Ask) -> None:
    code, text = ask("tiny:2,big,tiny")
    lines = dict(line.split(" ", 1) for line in text.splitlines())
    assert code == wire_steps.CHECK_PASSED
    del lines["cluster"]
    sets = "default:2,bare:1,default:1"
    assert lines == {"vms": "4", "cpus": "4", "memory": "2048", "exclusive": "0", "template": "tiny:2,big:1,tiny:1", "sets": sets}


def test_what_runs_is_frozen(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "ud").write_text("#cloud-config\n")
    mounts = "{h: '~', w: {path: '%{homedir}/..', readonly: true}}"
    user_template(tmp_path, f"mine: {{inherits: tiny, mount-points: {mounts}, disk-model: ide}}")
    group = frozen(ask("mine:3", mounts=["d=data", "h=/"], user_data="ud")).groups[0]
    assert (group.template, group.count, group.image) == ("mine", 3, str(tmp_path / "tiny.qcow2"))
    assert group.mounts == (Mount("h", "/"), Mount("w", f"{tmp_path}/home/..", readonly=True), Mount("d", str(tmp_path / "data")))
    assert (group.user_data, group.disk_model, group.memory) == ("#cloud-config\n", "ide", 256)


def test_a_template_edited_while_the_job_waits_changes_nothing(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "home/ud").write_text("#cloud-config\n{}\n")
    user_template(tmp_path, "mine: {inherits: tiny, user-data: ~/ud, custom-args: [-x]}")
    answer = ask("mine:2")
    before = frozen(answer)
    user_template(tmp_path, "mine: {inherits: big, image: /elsewhere, custom-args: [-y]}")
    (tmp_path / "home/ud").write_text("#!/bin/sh\nother\n")
    (tmp_path / "etc/templates.yaml").write_text("")
    assert frozen(answer) == before and before.groups[0].user_data == "#cloud-config\n{}\n"
    assert before.groups[0].custom_args == ("-x",) and before.groups[0].image == str(tmp_path / "tiny.qcow2")


def test_user_data_may_be_written_in_the_template(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "home/ud").write_text("#!/bin/sh\n")
    user_template(tmp_path, "a: {inherits: tiny, user-data: {packages: [vim]}}\nb: {inherits: tiny, user-data: ~/ud}")
    assert [group.user_data for group in frozen(ask("a,b")).groups] == ["#cloud-config\npackages:\n- vim\n", "#!/bin/sh\n"]


def test_an_image_can_be_typed_for_all_or_one(ask: Ask, tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_image(tmp_path / name)
    found = frozen(ask("tiny,big,empty", images=["./x", f"big={tmp_path}/y"]))
    assert [group.image for group in found.groups] == [str(tmp_path / name) for name in ("x", "y", "x")]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("tiny:65", "65 VMs are asked for, but a job of this site can have 64 at most"),
        ("tiny:1000000000", "1000000000 VMs are asked for, but a job of this site can have 64 at most"),
        ("tiny:0", "the number of VMs of 'tiny' must be at least 1, not 0"),
        ("tiny:x", "'x' is not a number of VMs"),
        ("nope", "there is no template 'nope'"),
        ("empty", "templates.yaml:4: empty: template 'empty' has no image"),
    ],
)
def test_a_request_that_cannot_be_had_is_refused(ask: Ask, template: str, said: str) -> None:
    assert said in refused(ask(template))


@pytest.mark.parametrize("key", ["users", "groups"])
def test_a_resource_set_for_others_is_refused(ask: Ask, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"users": pwd.getpwuid(os.getuid()).pw_name, "groups": grp.getgrgid(os.getgid()).gr_name}[key]
    for name, code in ((mine, wire_steps.CHECK_PASSED), ("nosuchname", wire_steps.CHECK_REFUSED)):
        write_site(
            tmp_path / "etc",
            resources=f"default: {{networks: [lan], default: true, {key}: [{name}]}}\nbare: {{}}\nfast: {{}}\n",
        )
        monkeypatch.setenv("USER", "nosuchname")
        assert ask("tiny")[0] == code
        assert ask("big")[0] == wire_steps.CHECK_PASSED
    assert "templates.yaml:1: tiny: resource set 'default' is not for " in refused(ask("big,tiny"))


def test_templates_whose_networks_overlap_are_refused(ask: Ask, tmp_path: Path) -> None:
    sets = "default: {networks: [lan], default: true}\nbare: {networks: [too]}\nfast: {}\n"
    write_site(tmp_path / "etc", networks="lan: {type: ethernet}\ntoo: {type: ethernet}\n", resources=sets)
    assert ask("tiny:2")[0] == ask("big")[0] == wire_steps.CHECK_PASSED
    assert "network 'too' (10.200.0.0/16) overlaps 'lan'" in refused(ask("tiny,big"))


def test_resource_sets_that_alternate_without_end_are_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "etc/pcocc.yaml").write_text("max-vms: 1000\n")
    assert "the list of resource sets is too long for the nodes" in refused(ask("tiny,big," * 70 + "tiny"))
    assert ask(",".join(["tiny"] * 140))[0] == wire_steps.CHECK_PASSED


def test_vms_out_of_range_are_refused(ask: Ask) -> None:
    assert "there is no vm9 in this virtual cluster" in refused(ask("tiny:2", vm="vm[9]"))
    assert ask("tiny:2", vm="vm[0-1]")[0] == wire_steps.CHECK_PASSED


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is not a qcow2 file: it is empty"),
        (b"\0" * 4096, "is not a qcow2 file"),
        (b"QFI\xfb\0\0", "is damaged: it is cut short"),
    ],
)
def test_a_wrong_image_is_refused(ask: Ask, tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "bad").write_bytes(content)
    text = refused(ask(images=["./bad"]))
    assert said in text and f"{tmp_path}/bad" in text and "hint: " in text


def test_an_image_that_would_block_or_is_no_file_is_refused(ask: Ask, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "etc"):
        assert "is not a regular file" in refused(ask(images=[f"./{name}"]))


def test_a_missing_backing_file_is_refused(ask: Ask, tmp_path: Path) -> None:
    head = bytearray(write_image(tmp_path / "over").read_bytes())
    head[8:20] = (512).to_bytes(8, "big") + (4).to_bytes(4, "big")
    head[512:516] = b"base"
    (tmp_path / "over").write_bytes(head)
    assert "backing file of image" in refused(ask(images=["./over"]))
    write_image(tmp_path / "base")
    assert ask(images=["./over"])[0] == wire_steps.CHECK_PASSED
    (tmp_path / "base").write_bytes(head)
    assert f"image {tmp_path}/over has more than 16 backing files" in refused(ask(images=["./over"]))


def test_wrong_user_data_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "large").write_text("x" * (64 * 1024 + 1))
    (tmp_path / "binary").write_bytes(b"\xff")
    assert "user-data file" in refused(ask(user_data="missing"))
    assert "larger than 64 KiB" in refused(ask(user_data="large"))
    assert "is not UTF-8 text" in refused(ask(user_data="binary"))


@pytest.mark.parametrize("option", ["images", "user_data", "mounts"])
def test_what_the_user_cannot_read_is_refused(ask: Ask, tmp_path: Path, option: str) -> None:
    if os.geteuid():
        pytest.skip("needs root to become somebody else")
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    (tmp_path / "secret").mkdir(mode=0o700)
    write_image(tmp_path / "secret.qcow2").chmod(0o600)
    value = {"images": ["./secret.qcow2"], "user_data": "secret.qcow2", "mounts": ["d=secret"]}[option]
    os.seteuid(65534)
    try:
        text = refused(ask(**{option: value}))
    finally:
        os.seteuid(0)
    assert "cannot be read: Permission denied" in text and "hint: see: ls -l" in text


@pytest.mark.parametrize(
    ("mount", "said", "hint"),
    [
        ("d=missing", "cannot be read: No such file or directory", "check the path"),
        ("d=tiny.qcow2", "is not a directory", "name a directory"),
        ("d=tiny.qcow2/x", "cannot be read: Not a directory", "check the path"),
        ("d=loop", "cannot be read: Too many levels of symbolic links", "its symbolic links lead in a circle: ls -l"),
        ("d=etc,ro", "etc,ro cannot be read", "if 'ro' is meant as an option: there are type=9p, type=virtiofs and readonly"),
        ("d=a,b/etc", "a,b/etc cannot be read", "check the path"),
    ],
)
def test_a_wrong_mount_is_refused(ask: Ask, tmp_path: Path, mount: str, said: str, hint: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    text = refused(ask(mounts=[mount]))
    assert text.startswith("pcocc: error: mount 'd': directory /") and said in text and f"hint: {hint}" in text


def test_a_directory_of_images_of_the_original_is_told_how_to_come_over(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    assert "is not a regular file" in refused(ask(images=["./old"]))
    for name in ("image", "image-rev2", "image-rev10", "image-rev10.bak"):
        write_image(tmp_path / "old" / name)
        newest = "image-rev10" if "10" in name else name
        assert f"hint: import its disk: pcocc image import {tmp_path}/old/{newest} NAME" in refused(ask(images=["./old"]))


def test_a_template_is_told_from_an_image(ask: Ask, tmp_path: Path) -> None:
    write_images(tmp_path / "home/.pcocc/images", "deb")
    user_template(tmp_path, "x: {inherits: deb}\ny: {inherits: x}")
    for template in ("x", "y", "x,deb", "y,deb"):
        text = refused(ask(template))
        assert "templates.yaml:1: x.inherits: 'deb' is an image, not a template\nhint: write image: deb" in text


@pytest.mark.parametrize("kind", ["file", "closed"])
def test_an_unknown_template_may_be_in_a_repository_that_cannot_be_read(ask: Ask, tmp_path: Path, kind: str) -> None:
    images = tmp_path / "home/.pcocc/images"
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    if kind == "file":
        images.write_text("")
    elif os.geteuid():
        pytest.skip("needs root to become somebody else")
    else:
        write_images(images, "deb")
        images.chmod(0o700)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        text = refused(ask("deb"))
        assert ask("tiny")[0] == wire_steps.CHECK_PASSED
    finally:
        os.seteuid(os.getuid())
    assert (
        "there is no template 'deb'\nhint: images may be missing: " in text
        and f"{images}" in text
        and "; templates: big," in text
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("image: '%{env:NOT_SET_ANYWHERE}'", "mine.image: the environment variable NOT_SET_ANYWHERE is not set"),
        ("mount-points: {a: '%{env:EMPTY}/'}", "mine.mount-points.a: the environment variable EMPTY is empty"),
        ("image: '/a/%{what}'", "mine.image: %{what} is not known"),
        ("user-data: rel/path", "mine.user-data: 'rel/path' is not an absolute path"),
        ("mount-points: {a: rel}", "mine.mount-points.a: 'rel' is not an absolute path"),
        ("cpus: 1, emulator-cores: 1", "mine.emulator-cores: with 1 of 1 CPUs kept for QEMU, none is left for the guest"),
        ("kernel: /gone", "kernel /gone cannot be read: No such file or directory"),
        ("kernel: {path: /proc/version, initrd: /gone}", "initrd /gone cannot be read"),
        ("resource-set: gone", "templates.yaml:1: mine.resource-set: there is no resource set 'gone'"),
        ("cpus: x", "templates.yaml:1: mine.cpus: expected a whole number, found text 'x'"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, said: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    user_template(tmp_path, f"mine: {{inherits: tiny, {setting}}}")
    assert said in refused(ask("mine"))


def test_a_uid_without_a_name_can_ask(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USER")
    monkeypatch.setattr(os, "getuid", lambda: 2**31)
    assert frozen(ask()).vm_count == 1


def test_a_broken_site_file_is_named_with_its_line(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "etc/networks.yaml").write_text("lan:\n  type: [\n")
    assert f"{tmp_path}/etc/networks.yaml:3: not valid YAML" in refused(ask())


ODD = ["/a\0b", "~", "%{user}", "/" + "x" * 300, "/" + "y/" * 3000, "a@1", "user:a", "/proc/self/mem", "/dev/zero"]
words = st.text(max_size=12) | st.sampled_from(ODD)
typed = (words | st.builds("tiny={}".format, words) | st.builds("d={}".format, words)).filter(lambda text: "\0" not in text)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(words | st.sampled_from(["path", "type", "append"]), inner, max_size=3), max_leaves=8,
)


@pytest.mark.thorough
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.dictionaries(st.sampled_from([*SETTINGS]), trees, max_size=4))
def test_any_template_is_taken_or_refused_in_a_sentence(ask: Ask, tmp_path: Path, values: dict[str, object]) -> None:
    user_template(tmp_path, yaml.safe_dump({"mine": {"image": str(tmp_path / "tiny.qcow2"), **values}}))
    code, text = ask("mine:2")
    assert code != wire_steps.CHECK_BROKEN, text
    if code == wire_steps.CHECK_REFUSED:
        refused((code, text))


@pytest.mark.thorough
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.sampled_from(["images", "mounts", "user_data", "vm", "template"]), typed)
def test_any_text_of_an_option_is_taken_or_refused_in_a_sentence(ask: Ask, option: str, text: str) -> None:
    value = [text] if option in ("images", "mounts") else text
    code, said = ask(**{option: value})  # type: ignore[arg-type]
    assert code != wire_steps.CHECK_BROKEN, said
    if code == wire_steps.CHECK_REFUSED:
        refused((code, said))


def test_a_fault_of_our_own_is_told_as_one(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_arguments: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(freeze, "freeze", burst)
    code, text = ask()
    assert code == wire_steps.CHECK_BROKEN
    assert text.startswith("ZeroDivisionError at test_main.py:") and text.endswith(": boom")
    assert client.check_request("no json")[0] == wire_steps.CHECK_BROKEN


def test_an_option_without_value_is_told(ask: Ask) -> None:
    assert refused(ask(" ")).startswith("pcocc: error: --pcocc-template has no value\n")
    assert noted(ask(user_data="")) == "--pcocc-user-data= does not name a file, and is ignored"
    assert noted(ask(restart="")) == "--pcocc-restart= does not name a directory, and is ignored"
    assert refused(ask(None, restart="")).startswith("pcocc: error: --pcocc-restart= names no directory\n")


def test_a_text_or_url_where_user_data_belongs_is_told(ask: Ask) -> None:
    said = refused(ask(user_data="#cloud-config\npackages: [vim]\n"))
    assert "takes the path of a file, not its text\nhint: write the text into a file" in said
    assert "hint: fetch it first" in refused(ask(user_data="https://example.org/ud"))
