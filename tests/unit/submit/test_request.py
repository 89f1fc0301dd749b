"""The text of the --pcocc options."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.documents.typed_options import TypedOptions
from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.submit.request import (
    Request,
    RequestPart,
    parse_image,
    parse_mount,
    parse_mounts,
    parse_request,
    parse_request_parts,
    parse_vms,
    render_request_parts,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
parts = st.lists(st.builds(RequestPart, names, st.integers(1, 10**15)), min_size=1, max_size=5).map(tuple)


@pytest.mark.thorough
@given(parts)
def test_the_canonical_text_parses_to_the_same(wanted: tuple[RequestPart, ...]) -> None:
    assert parse_request_parts(render_request_parts(wanted)) == wanted


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parse_request_parts, parse_mount, lambda word: parse_vms(word, 5)):
        try:
            parse(text)
        except PcoccError as error:
            assert error.message


def test_a_count_is_one_when_left_out() -> None:
    found = (RequestPart("debian", 2), RequestPart("gpu", 1), RequestPart("debian", 1))
    assert parse_request_parts("debian:2,gpu,debian:01") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tiny:0", "the number of VMs of 'tiny' must be at least 1, not 0"),
        ("tiny:-1", "the number of VMs of 'tiny' must be at least 1, not -1"),
        ("tiny:-" + "9" * 30, "the number of VMs of 'tiny' must be at least 1, not -" + "9" * 30),
        ("tiny:" + "0" * 30, "the number of VMs of 'tiny' must be at least 1, not " + "0" * 30),
        ("tiny:", "'' is not a number of VMs of template 'tiny'"),
        ("tiny:two", "'two' is not a number of VMs of template 'tiny'"),
        ("tiny:1.5", "'1.5' is not a number of VMs of template 'tiny'"),
        ("tiny:٣", "'٣' is not a number of VMs of template 'tiny'"),
        ("tiny:1:2", "'1:2' is not a number of VMs of template 'tiny'"),
        (",tiny", "'' in --pcocc-template=,tiny is not the name of a template"),
        ("../x", "'../x' in --pcocc-template=../x is not the name of a template"),
        ("x" * 20000, "--pcocc-template is longer than 16384 characters"),
    ],
)
def test_a_wrong_template_text_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request_parts(text)
    assert caught.value.message == said and caught.value.hint


def test_a_count_beyond_all_numbers_is_told_as_typed() -> None:
    with pytest.raises(RequestError, match=r"9{5000} VMs of template 't' are more than any job can have"):
        parse_request_parts("t:" + "9" * 5000)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("/a/b.qcow2", (None, "/a/b.qcow2")),
        ("tiny=/a/b=c.qcow2", ("tiny", "/a/b=c.qcow2")),
        ("./x=y", (None, "./x=y")),
        ("name", (None, "name")),
        ("a/b=name", ("a/b", "name")),
        ("a/c=name", (None, "a/c=name")),
    ],
)
def test_an_image_may_name_its_template(text: str, image: tuple[str | None, str]) -> None:
    assert parse_image(text, (RequestPart("tiny", 1), RequestPart("a/b", 1))) == image


def test_a_template_may_have_slashes() -> None:
    assert parse_request_parts("site/big:2,tiny") == (RequestPart("site/big", 2), RequestPart("tiny", 1))
    for wrong in ("/big", "a//b c", "./a"):
        with pytest.raises(RequestError, match="is not the name of a template"):
            parse_request_parts(wrong)


@pytest.mark.parametrize("text", ["other=/a", "tiny=", ""])
def test_a_wrong_image_option_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--pcocc-image="):
        parse_image(text, (RequestPart("tiny", 1),))


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("home=/home", Mount("home", "/home")),
        ("d=/a,b", Mount("d", "/a,b")),
        ("d=/a,readonly,type=virtiofs", Mount("d", "/a", "virtiofs", True)),
        ("d=/a,b,type=9p,readonly", Mount("d", "/a,b", "9p", True)),
        ("d=~/x", Mount("d", "~/x")),
        ("d=/a,type=virtio-fs,readonly=true", Mount("d", "/a", "virtiofs", True)),
        ("d=/a,readonly=false,type=virtio-9p", Mount("d", "/a", "9p")),
        ("d=/a,readonly=perhaps", Mount("d", "/a,readonly=perhaps")),
    ],
)
def test_a_mount_is_parsed_from_its_end(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    "text",
    ["/home", "=/home", "a b=/x", "d=", "d=,readonly", "d=/a,type=nfs", "d=/a,type=9p,readonly,type=virtiofs", "x" * 32 + "=/a"],
)
def test_a_wrong_mount_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--pcocc-mount="):
        parse_mount(text)


def test_a_tag_can_be_given_once() -> None:
    with pytest.raises(RequestError, match="tag 'd' twice"):
        parse_mounts(["d=/a", "d=/b"])


@pytest.mark.parametrize(
    ("text", "ranks"),
    [("vm0", (0,)), ("vm[0-2,4]", (0, 1, 2, 4)), ("vm3,vm1", (1, 3)), ("vm[1,3],vm4", (1, 3, 4)), ("vm[007-8]", (7, 8))],
)
def test_a_set_of_vms(text: str, ranks: tuple[int, ...]) -> None:
    assert parse_vms(text, 9) == ranks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vm[9]", "there is no vm9 in this virtual cluster"),
        ("vm[0-999999999]", "there is no vm999999999 in this virtual cluster"),
        ("vm[1-0]", "'vm[1-0]' counts backwards"),
        ("n1", "'n1' is not a set of VMs"),
        ("vm[", "'vm[' is not a set of VMs"),
        ("vm[1--2]", "'vm[1--2]' is not a set of VMs"),
        ("vm", "'vm' is not a set of VMs"),
    ],
)
def test_a_wrong_set_of_vms_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_vms(text, 2)
    assert caught.value.message == said


def test_a_request_carries_all_options() -> None:
    text = TypedOptions(template="a:2,b", images=["b=/b"], mounts=["t=/t"], user_data="u", vm="vm1")
    found = parse_request(text)
    assert found == Request(
        (RequestPart("a", 2), RequestPart("b", 1)), (("b", "/b"),), (Mount("t", "/t"),), "u", "vm1"
    )
    assert found.vm_count == 3


def test_a_template_without_a_value_is_called_that() -> None:
    with pytest.raises(RequestError, match="--pcocc-template has no value") as caught:
        parse_request(TypedOptions(template="", vm="vm0", images=["/a"]))
    assert caught.value.hint is not None and "pcocc template list" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "option"),
    [({"images": ["/a"]}, "image"), ({"mounts": ["a=/a"]}, "mount"), ({"user_data": "x"}, "user-data"), ({"vm": "vm0"}, "vm")],
)
def test_an_option_without_a_template_is_refused(options: dict[str, Any], option: str) -> None:
    with pytest.raises(RequestError, match=f"--pcocc-{option} needs --pcocc-template"):
        parse_request(TypedOptions(**options))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tiny=2", "write --pcocc-template=tiny:2"), ("tiny*2", "write --pcocc-template=tiny:2"),
        ("tiny 2", "write --pcocc-template=tiny:2"), ("tiny: 2", "write --pcocc-template=tiny:2"),
        ("2:tiny", "write --pcocc-template=tiny:2"), ("2x tiny", "write --pcocc-template=tiny:2"),
        ("tiny:2, big", "write it without spaces: --pcocc-template=tiny:2,big"),
        ("tiny:2 big", "put commas between templates: --pcocc-template=tiny:2,big"),
        ("tiny;big:3", "put commas between templates: --pcocc-template=tiny,big:3"),
        ("tiny,", "leave out the comma that stands there for nothing"), (",tiny", "leave out the comma"),
        *((text, "write --pcocc-template=TPL") for text in (",", "vm[0-3]", "tiny:two")),
    ],
)  # fmt: skip
def test_what_was_meant_is_said(text: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request_parts(text)
    assert str(caught.value.hint).startswith(hint)
