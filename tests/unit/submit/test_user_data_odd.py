"""What a Jinja template uses that jinja in cloud-init does not have, and users whose settings have odd types, beside what
the real cloud-init does with them.
"""

from pathlib import Path

import pytest

from tests.unit.fake_site import Ask, noted, refused
from tests.unit.guest.asking import ask_cloud_init, lets_in

pytestmark = pytest.mark.thorough

HEAD = "## template: jinja\n#cloud-config\n"
UNKNOWN = [
    ("a: {{ x | nosuch }}\n", "uses the filter nosuch in line 3, which jinja does not have"),
    ("a: {{ x | default('y | z') |b64encode }}\n", "uses the filter b64encode in line 3"),
    ("{% filter shout %}\na: 1\n{% endfilter %}\n", "uses the filter shout in line 3"),
    ("{# x|nosuch #}\n{% if x is not found %}\na: 1\n{% endif %}b: 1\n", "uses the test found in line 4"),
    ("a: {{ lookup('env', 'x') }}\n", "uses the function lookup in line 3"),
]
KNOWN = [
    "{% macro f(a) %}{{ a | upper }}{% endmacro %}\na: '{{ f('x') }} {{ v1.get('a') }} {{ range(3)|list }}'\n",
    "a: \"{{ 'is odd | nosuch(1)' if 3 is odd and not (4 is divisibleby(3)) }}\"\n",
    "b: '{% raw %}{{ a | b }}{% endraw %}'\n",
    "{% for k, v in {'a': 1}.items() %}\n{{ loop.cycle(k, 'x') }}: {{ dict(a=v)['a'] }}\n{% endfor %}\n",
    "{% set ns = namespace(n=0) %}{% set ns.n = 1 %}\na: {{ ns.n is number and (ns.n) is eq(1) }}\n",
    "a: {{ [3, 1] | sort | map('string') | join(',') | trim }}\n",
]  # fmt: skip


@pytest.fixture(autouse=True)
def without_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave cloud-init's schema out, which speaks of other things."""
    monkeypatch.setattr("pcocc_runtime.submit.cloud_init.find_schema_error", lambda _text: None)


def is_lost(guest: dict[str, list[str]]) -> bool:
    return any(line.startswith(("Failed calling handler", "Ignoring jinja")) for line in guest["warned"])


def test_what_jinja_does_not_have_is_noted(ask: Ask, tmp_path: Path) -> None:
    for (text, words), guest in zip(UNKNOWN, ask_cloud_init([HEAD + text for text, _words in UNKNOWN]), strict=True):
        assert is_lost(guest), (text, guest)
        (tmp_path / "ud").write_text(HEAD + text)
        assert words in noted(ask(user_data="ud")), text


def test_nothing_is_said_of_what_it_has(ask: Ask, tmp_path: Path) -> None:
    for text, guest in zip(KNOWN, ask_cloud_init([HEAD + text for text in KNOWN]), strict=True):
        assert not is_lost(guest), (text, guest)
        (tmp_path / "ud").write_text(HEAD + text)
        assert noted(ask(user_data="ud")) == "", text


SHUT = [
    "user: {name: alice, primary_group: 1000}\n", "users: [{name: alice, ssh_authorized_keys: {mine: key}}]\n",
    "users: [{name: alice, groups: adm, primary_group: {a: b}}]\n", "merge_how: ''\nmerge_type: 1.5\n",
    "users: [default, {name: alice, ssh_authorized_keys: {}}]\n", "merge_how: list()+dict()\nmerge_type: append\n",
]  # fmt: skip
TAKEN = [
    "vendor_data: []\n", "vendor_data: x\n", "merge_how: {}\n", "users: [{name: alice, primary_group: 7}]\n",
    "users: [{name: bob, ssh_authorized_keys: {mine: key}}]\n", "users: [{name: bob, snapuser: a@example.org}]\n",
]  # fmt: skip
SURE = [
    "{% if true %}\nusers: bob\n{% endif %}\n", "{% if 1 -%}\nusers: bob\n{% else %}\nusers: [default]\n{% endif %}\n",
    "{% if not false %}users: bob{% endif %}\n", "{% if 'x' %}users: bob{% elif y %}users: []{% endif %}\n",
    "{% with a = 1 %}\nusers: bob\n{% endwith %}\n", "{% if True %}{% with a = 1 %}users: {b: c}{% endwith %}{% endif %}\n",
]  # fmt: skip
UNMADE = [
    "users: [{name: bob, ssh_authorized_keys: [[key]]}]\n", "users: [{name: bob, ssh_authorized_keys: ~}]\n",
    "users: [{name: bob, groups: adm, primary_group: [x]}]\n", "user: {primary_group: 7}\n",
    "users: [{name: bob, snapuser: ~}]\n",
]  # fmt: skip


def test_users_are_made_as_cloud_init_makes_them(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcocc_runtime.system.accounts.read_home", lambda: ("alice", "/home/alice"))
    texts = [f"#cloud-config\n{text}" for text in (*SHUT, *TAKEN, *UNMADE)]
    for text, guest in zip(texts, ask_cloud_init(texts), strict=True):
        (tmp_path / "ud").write_text(text)
        kind = next(one for one in (SHUT, TAKEN, UNMADE) if text.partition("\n")[2] in one)
        failed = any(one.startswith("users") for one in guest["failed"])
        assert lets_in(guest) == (kind is not SHUT) and failed <= (kind is not TAKEN), (text, guest)
        if kind is SHUT:
            assert "user-data file" in refused(ask(user_data="ud"))
        else:
            assert ("cloud-init would make neither" in noted(ask(user_data="ud"))) == (kind is UNMADE), text


def test_what_a_template_writes_in_any_case_is_refused(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcocc_runtime.system.accounts.read_home", lambda: ("alice", "/home/alice"))
    for text, guest in zip(SURE, ask_cloud_init([HEAD + text for text in SURE]), strict=True):
        (tmp_path / "ud").write_text(HEAD + text)
        assert not lets_in(guest) and "users: must be a list" in refused(ask(user_data="ud")), (text, guest)
    open_ended = "{% set x = 'bob' %}\n{% with x = '[default]' %}\nusers: {{ x }}\n{% endwith %}\n"
    (tmp_path / "ud").write_text(HEAD + open_ended)
    assert "users: must be a list" in noted(ask(user_data="ud")), "only rendering it tells what x is there"


def test_few_of_many_are_named(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_text(HEAD + "".join(f"k{n}: {{{{ x | f{n} }}}}\n" for n in range(50)))
    assert noted(ask(user_data="ud")).count("uses the filter") == 3


def test_a_file_whose_content_is_nothing_is_noted(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_text("#cloud-config\nwrite_files: [{path: /x, content: ~}]\n")
    assert "write_files[0].content: is nothing: cloud-init before 24.3 fails on it" in noted(ask(user_data="ud"))
    (tmp_path / "ud").write_text("#cloud-config\nwrite_files: [{content: ~}, {path: /x, content: ~, source: x}, {path: /y}]\n")
    assert noted(ask(user_data="ud")) == ""
