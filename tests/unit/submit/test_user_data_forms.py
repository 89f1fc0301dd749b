"""Every form of user-data that cloud-init reads or does not read: what we say of it, beside what the real cloud-init does
with it.
"""

import base64
import bz2
import gzip
import json
import lzma
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_site import Ask, frozen, noted, refused, user_template
from tests.unit.guest.asking import ask_cloud_init, lets_in

pytestmark = pytest.mark.thorough

CONFIG = "#cloud-config\n"
JINJA = "## template: jinja\n"
# what cloud-init logs then
LEFT_OUT = ("Unhandled", "Failed at merging", "Failed calling handler", "Ignoring jinja", "Failed loading yaml")


def mime(*parts: tuple[str, str], **headers: str) -> str:
    message = MIMEMultipart()
    for kind, text in parts:
        part = MIMEText(text, kind, "us-ascii" if text.isascii() else "utf-8")
        for name, value in headers.items():
            part[name.replace("_", "-")] = value
        message.attach(part)
    return message.as_string()


def in_base64(text: str | bytes) -> str:
    return base64.encodebytes(text.encode() if isinstance(text, str) else text).decode()


def is_left_out(found: dict[str, Any]) -> bool:
    """Tell whether cloud-init does nothing with a part of a text, or with a setting of it."""
    return bool(found["raised"] or found["failed"] or any(line.startswith(LEFT_OUT) for line in found["warned"]))


LOSING = f"{CONFIG}users: bob\n"
GOOD = f"{CONFIG}packages: [vim]\nusers: [default, {{name: bob}}]\n"
SHUT = "user: {name: alice, ssh_authorized_keys: [mine]}\n"
ARCHIVE = "#cloud-config-archive\n"
# each is refused, with these words: cloud-init could not run it, or would let nobody in
REFUSED = [
    ("\ufeff" + GOOD, "byte-order mark"),
    ("---\n" + GOOD, "does not begin with #cloud-config"),
    ("# my VMs\n\n" + GOOD, "with nothing before it"),
    ("hello\n" + GOOD, "does not begin with #cloud-config"),
    ("# cloud-config\npackages: [vim]\n", "write #cloud-config in place of # cloud-config"),
    ("#cloud_config\nhostname: x\n", "write #cloud-config in place of #cloud_config"),
    ("#Cloud Config:\nfoo: x\n", "write #cloud-config in place of #Cloud Config:"),
    ("##cloud-config\nfoo: x\n", "write #cloud-config in place of ##cloud-config"),
    ("#cloudconfig\nfoo: x\n", "write #cloud-config in place of #cloudconfig"),
    ("# cloud-config-archive\n- '#!x'\n", "write #cloud-config-archive in place of"),
    (in_base64(GOOD), "base64 -d"),
    (in_base64(gzip.compress(GOOD.encode())), "base64 -d"),
    (in_base64(mime(("cloud-config", GOOD))), "base64 -d"),
    (mime(("cloud-config", GOOD)).replace("MIME-Version: 1.0\n", ""), "MIME-Version: 1.0"),
    ("\n".join(mime(("cloud-config", GOOD)).split("\n")[3:]), "MIME"),
    ("\n" + mime(("cloud-config", GOOD)), "MIME"),
    (mime(("cloud-config", GOOD)).replace("boundary=", "boundary=wrong"), "look at its boundary"),
    ('{"packages": ["vim"]}', "make #cloud-config its first line"),
    ('{"hostname": "x"}', "make #cloud-config its first line"),
    ("runcmd:\n- a\n", "make #cloud-config its first line"),
    ("\n" + JINJA + GOOD, "has lines before '## template: jinja'"),
    ("## template: jinja2\n" + GOOD, "make '## template: jinja' all of its first line"),
    ("##template: jinja\n" + GOOD, "spelled exactly so"),
    (JINJA + "packages: [vim]\n", "does not begin with #cloud-config"),
    (JINJA + "\n# a\n" + GOOD, "does not begin with #cloud-config"),
    (LOSING, "ud:2: users: must be a list, not text"),
    (JINJA + LOSING, "ud:3: users: must be a list, not text"),
    (JINJA + CONFIG + "users: {{name: {{{{ v1.local_hostname }}}}}}\n".format(), "ud:3: users: must be a list, not a mapping"),
    (JINJA + CONFIG + "{% if v1 %}\npackages: [a]\n{% endif %}\nusers: bob\n", "ud:6: users: must be a list, not text"),
    (JINJA + CONFIG + "users: {% if v1 %}bob{% else %}eve{% endif %}\n", "users: must be a list, not text"),
    (JINJA + CONFIG + SHUT, "ud:3: user: gives 'alice'"),
    (ARCHIVE + "- |\n  #cloud-config\n  a: 1\n  users: bob\n", "ud:5, entry 1: users: must be a list, not text"),
    (ARCHIVE + "- {content: '#!/bin/sh'}\n- type: text/cloud-config\n  content: |\n    users: bob\n",
     "ud:5, entry 2: users: must be a list"),
    (ARCHIVE + f"- {json.dumps(SHUT)}\n", "entry 1: user: gives 'alice'"),
    (ARCHIVE + "a: [\n", "as an archive it is not valid YAML"),
    (ARCHIVE + "a: b\n", "as an archive it must be a list"),
    (ARCHIVE + "- !!timestamp ''\n", "as an archive it is not valid YAML"),
    (CONFIG + "a: !!timestamp ''\n", "is not a valid cloud-config: it is not valid YAML"),
    (mime(("cloud-config", "a: b\n")).replace("a: b", "a: é"), "encode that part of the MIME message as base64"),
    (ARCHIVE + "- {content: 7}\n", "entry 1 cannot be read by cloud-init"),
    (ARCHIVE + "- {content: x, other: 7}\n", "entry 1 cannot be read by cloud-init"),
    (ARCHIVE + "- {content: x, type: cloud-config}\n", "entry 1 cannot be read by cloud-init"),
    (ARCHIVE + "- a: [\n", "as an archive it is not valid YAML"),
    (mime(("cloud-config", LOSING)), "users: must be a list, not text"),
    (mime(("x-shellscript", "#!/bin/sh\n"), ("cloud-config", "packages: [a]\nusers: bob\n")),
     ", part 2: users: must be a list, not text"),
    (mime(("plain", LOSING)), "users: must be a list, not text"),
    (mime(("jinja2", JINJA + LOSING)), "users: must be a list, not text"),
    (mime(("cloud-config-archive", ARCHIVE + f"- {json.dumps(LOSING)}\n")), "entry 1: users: must be a list"),
    (mime(("cloud-config", "a: [\n"), ("cloud-config", GOOD)), "part 1, is not a valid cloud-config"),
    (mime(("cloud-config", SHUT)), "user: gives 'alice'"),
    (mime(("cloud-config", GOOD), ("cloud-config", "users: bob\n")), ", part 2: users: must be a list"),
    (mime(("cloud-config-jsonp", '#cloud-config-jsonp\n[{"op": "add", "path": "/users", "value": "bob"}]')),
     "users: must be a list, not text"),
    ("#cloud-config-jsonp\n[{]\n", "is not a JSON patch"),
    (CONFIG + SHUT, "ud:2: user: gives 'alice', the user that commands run as in the VM, other ssh keys than the job's"),
    (CONFIG + "users: [default, {name: alice, ssh-authorized-keys: [mine]}]\n", "ud:2: users[1]: gives 'alice'"),
    (CONFIG + "users: [{name: alice, ssh_redirect_user: true}]\n", "ud:2: users[0]: ssh_redirect_user does not go with ssh keys"),
    (CONFIG + "users: [{name: alice, system: true}]\n", "ud:2: users[0]: system does not go with ssh keys"),
    (CONFIG + "users: [{name: alice, groups: [7]}]\n", "ud:2: users[0]: groups must be a list of names"),
    (CONFIG + "user: {name: alice, shell: /usr/sbin/nologin}\n", "ud:2: user: gives 'alice' the shell /usr/sbin/nologin"),
    (CONFIG + "users: [default]\nchpasswd: {list: \"bob:x\\nalice:secret\"}\n", "ud:3: chpasswd: lets the password of 'alice'"),
    (CONFIG + "chpasswd:\n  list: |\n    alice:secret\n", "ud:2: chpasswd: lets the password of 'alice', the user that"),
    (CONFIG + "chpasswd: {users: [{name: alice, password: x, type: text}]}\n", "ud:2: chpasswd: lets the password of 'alice'"),
    (CONFIG + "chpasswd: {expire: yes, users: [{name: alice, type: RANDOM}]}\n", "ud:2: chpasswd: lets the password of 'alice'"),
    (CONFIG + "user: alice\npassword: x\n", "ud:3: password: lets the password of 'alice'"),
    (mime(("cloud-config", "chpasswd: {list: ['alice:RANDOM']}\n")), "chpasswd: lets the password of 'alice'"),
    (JINJA + CONFIG + "chpasswd: {list: ['alice:RANDOM']}\n", "ud:3: chpasswd: lets the password of 'alice'"),
    (CONFIG + "packages: [vim]\n---\nruncmd: [ls]\n", "line 3: expected a single document"),
    (JINJA + CONFIG + "users:\n{% for x in ['a', 'b'] %}\n  {{ x }}: 1\n{% endfor %}\n", "ud:3: users: must be a list, not a"),
    (CONFIG + "groups: [7]\n", "ud:2: groups[0]: is not a group that cloud-init can make"),
    (CONFIG + "vendor_data: {enabled: false}\n", "ud:2: vendor_data: keeps cloud-init from reading"),
    (CONFIG + "runcmd: echo hello\n", "ud:2: runcmd: cannot be run"),
    (CONFIG + "runcmd: [7]\n", "ud:2: runcmd[0]: cannot be run"),
    (CONFIG + "bootcmd: {a: b}\n", "ud:2: bootcmd: cannot be run"),
    (CONFIG + "bootcmd:\n", "ud:2: bootcmd: cannot be run"),
    (CONFIG + "write_files: {path: /x}\n", "ud:2: write_files: cannot be run"),
    (CONFIG + "write_files: [/x]\n", "ud:2: write_files[0]: cannot be run"),
    (CONFIG + "write_files: [{path: 7}]\n", "ud:2: write_files[0].path: must be text, not a whole number"),
    (CONFIG + "write_files: [{path: /a}, {path: /x, owner: 7}]\n", "ud:2: write_files[1].owner: must be text"),
    (CONFIG + "write_files: [{path: /x, content: 7}]\n", "ud:2: write_files[0].content: must be text"),
    (CONFIG + "write_files: [{path: /x, encoding: b64, content: abc}]\n", "write_files[0].content: cannot be decoded as b64"),
    (CONFIG + "write_files: [{path: /x, encoding: gz, content: x}]\n", "write_files[0].content: cannot be decoded as gz"),
    (CONFIG + "merge_how: append\npackages: [a]\n", "ud:2: merge_how: is not a way to merge that cloud-init knows"),
    (CONFIG + "merge_how: 7\n", "ud:2: merge_how: is not a way to merge"),
    (CONFIG + "merge_type: [[lists, append]]\n", "ud:2: merge_type: is not a way to merge"),
    (mime(("cloud-config", "packages: [a]\n"), Merge_Type="append"), "is not a way to merge that cloud-init knows"),
    ("#cloud-config-jsonp\n[{\"op\": \"set\", \"path\": \"/a\", \"value\": 1}]\n", "is not a JSON patch"),
    ("#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/a\"}]\n", "step 1 has no 'value'"),
    ("#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"a\", \"value\": 1}]\n", "does not begin with '/'"),
    ("#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"\", \"value\": {\"users\": \"bob\"}}]\n",
     "users: must be a list, not text"),
    ("#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/users\", \"value\": []},"
     " {\"op\": \"move\", \"path\": \"/users\", \"from\": \"/a\"}, {\"op\": \"x\"}]\n", "step 3 has none of the operations"),
    (JINJA + "#cloud-config-jsonp\n[]\n", "is a template of a kind of text that cloud-init does not take from a template"),
    (JINJA + JINJA + LOSING, "is a template of a kind of text that cloud-init does not take from a template"),
    (JINJA + CONFIG + "users: {{ 'bob' }}\n", "ud:3: users: must be a list, not text"),
    (JINJA + CONFIG + "users: {# c #} bob\n", "ud:3: users: must be a list, not text"),
    (JINJA + CONFIG + "{% set x = 'bob' %}\nusers: {{ x }}\n", "ud:4: users: must be a list, not text"),
    (JINJA + CONFIG + "{{ 'users: bob' }}\n", "users: must be a list, not text"),
    (JINJA + CONFIG + "{% set x = '[default]' %}{% set x = \"bob\" -%}\n\nusers: {{ x }}\n", "users: must be a list, not text"),
    (JINJA + CONFIG + "a: {{ [1, 2 }}\n", "has the tag {{ [1, 2 }} in line 3, where jinja cannot read it"),
    (JINJA + CONFIG + "a: 1\n{% if (v1 %}\nb: 1\n{% endif %}\n", "has the tag {% if (v1 %} in line 4"),
    (JINJA + CONFIG + "{% for in x %}\na: 1\n{% endfor %}\n", "has the tag {% for in x %} in line 3"),
    (JINJA + CONFIG + "{% break %}\n", "has the tag {% break %} in line 3, where jinja cannot read it"),
    (JINJA + CONFIG + "a: 1\n{% endset %}\n", "has the tag {% endset %} in line 4, where jinja cannot read it"),
    (CONFIG + "merge_how: [{name: list, settings: ~}]\n", "ud:2: merge_how: is not a way to merge"),
    (JINJA + CONFIG + "a: {% if %}\n", "has the tag {% if %} in line 3, where jinja cannot read it"),
    (JINJA + CONFIG + "{% if v1 %}\na: 1\n", "has a {% if %} without {% endif %}"),
    (JINJA + CONFIG + "{% for x in y %}\na: 1\n{% endif %}\n", "has the tag {% endif %} in line 5, where jinja cannot read it"),
    (JINJA + CONFIG + "{% include 'x' %}\n", "takes another template in line 3, but cloud-init has no other"),
]  # fmt: skip
# each is passed on with a note of these words: it runs, or is nothing for cloud-init and was not meant for it
NOTED = [
    (ARCHIVE + "- {content: 'a: 1', 'type:x': null}\n", "has the key 'type:x'"),
    (ARCHIVE + "- {content: 'a: 1', 'my key': 7y}\n", "has the key 'my key'"),
    (ARCHIVE + "- {content: 'a: 1', 'schlüssel': y}\n", "has the key 'schlüssel'"),
    ("hello\n", "begins with 'hello'"),
    (CONFIG + "write_files: [{path: /x, permissions: 644}]\n", "ud:2: write_files[0].permissions is 644, which cloud-init takes"),
    ("\n#!/bin/sh\necho\n", "has white space before #!, and the guest could not run it"),
    (mime(("x-shellscript", "  #!/bin/sh\n")), "has white space before #!"),
    ('{"ignition": {"version": "3.0.0"}, "users": []}', "which cloud-init does not know"),
    ("version: v1alpha1\nmachine: {type: worker}\n", "which cloud-init does not know"),
    ("#ps1_sysnative\nusers: x\n", "which cloud-init does not know"),
    ("\ufeff#!/bin/sh\n", "byte-order mark"),
    (in_base64("#!/bin/sh\nexit 0\n"), "base64 -d"),
    ("echo hello\n", "which cloud-init does not know"),
    (mime(("x-unknown", "hello")), "which cloud-init does not know"),
    (CONFIG + "packages: [a]\nruncmd: [x]\npackages: [b]\n", "ud:4: packages is set twice, first in line 2"),
    (CONFIG + "users:\n- {name: a, uid: 1, uid: 2}\n", "ud:3: users[0].uid is set twice, first in line 3"),
    (JINJA + CONFIG + "packages: [a]\npackages: [b]\n", "ud:4: packages is set twice, first in line 3"),
    (mime(("cloud-config", "a: 1\na: 2\n")), "a is set twice"),
    (CONFIG + "phone_home: {tries: 010}\n", "ud:2: phone_home.tries is 010, which is the number 8 in YAML"),
    (CONFIG + "a: [1, -017]\n", "ud:2: a[1] is -017, which is the number -15 in YAML"),
    (CONFIG + "a: {ports: 22:22}\n", "ud:2: a.ports is 22:22, which is the number 1342 in YAML"),
    (JINJA + CONFIG + "{% if 0 %}\nusers: bob\n{% endif %}\n", "users: must be a list, not text"),
    (JINJA + CONFIG + "users: {{ x }}\n", "users: must be a list, not text"),
    (JINJA + CONFIG + "users: {% if x %}[default]{% else %}bob{% endif %}\n", "users: must be a list, not text"),
    (JINJA + CONFIG + "{% set x %}bob{% endset %}users: {{ x }}\n", "users: must be a list, not text"),
    (JINJA + CONFIG + "{%- if v1 -%}\nusers: [bob]\n{%- endif -%}\n", "has no setting in it"),
    (ARCHIVE + "- 7\n", "is an archive without a part"),
    (ARCHIVE + "[]\n", "is an archive without a part"),
    (ARCHIVE, "is an archive without a part"),
    ("#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/users/-\", \"value\": \"bob\"}]\n",
     "cannot be applied, and cloud-init would leave all of it out: there is no /users"),
    ("#cloud-config-jsonp\n[{\"op\": \"remove\", \"path\": \"/users\"}]\n", "there is no /users"),
    ("#cloud-config-jsonp\n[{\"op\": \"test\", \"path\": \"\", \"value\": 1}]\n", "the whole document is not the value"),
    ("#cloud-config packages: [vim]\n", "has no setting in it, and cloud-init would find nothing to do"),
    (mime(("cloud-config", "#!/bin/sh\n")), "has no setting in it"),
    (mime(("upstart-job", "hello")), "which cloud-init does not know"),
    (CONFIG + "users: [default, {name: 7}]\n", "ud:2: users[1]: its name, or one of its keys, is not text: cloud-init"),
    (CONFIG + "users: [{name: bob, no-create-home: true, ssh-import-id: [x]}]\n",
     "ud:2: users[0]: no_create_home does not go with"),
]  # fmt: skip
# of each nothing is said: cloud-init runs it
SILENT = [
    "", GOOD, "\n \n" + GOOD, GOOD.upper().replace("PACKAGES: [VIM]\nUSERS: [DEFAULT, {NAME: BOB}]", "a: 1"),
    "#!/bin/sh\n", JINJA + GOOD,
    JINJA + CONFIG + "users: {% if x %}[default]{% else %}[alice]{% endif %}\n",
    JINJA + "#!/bin/sh\necho {{ v1.local_hostname }}\n",
    JINJA + CONFIG + "{# users: bob #}\nruncmd: [['{{ v1.local_hostname }}']]\n",
    JINJA + CONFIG + "{% raw %}\na: '{{ x }}'\n{% endraw %}\n",
    ARCHIVE + "- |\n  #cloud-config\n  users: [default]\n- '#!/bin/sh'\n- {content: 'a: 1'}\n",
    mime(("cloud-config", "packages: [a]\n"), ("x-shellscript", "#!/bin/sh\n")),
    mime(("cloud-config", "users: bob\n"), ("cloud-config", GOOD)),
    mime(("cloud-config", "users: [bob]\n"), ("cloud-config", "users: [eve]\nmerge_how: list(append)+dict(recurse_list)\n")),
    ARCHIVE + "- {content: 'a: 1', x-type: null, merge-type: list()}\n", "#cloud-boothook\necho\n",
    "#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/a\", \"value\": \"bob\"}]\n",
    mime(("cloud-config", "users: [bob]\na: {b: [1, 2]}\n"), ("cloud-config-jsonp", "#cloud-config-jsonp\n" + json.dumps([
        {"op": "add", "path": "/users/-", "value": "eve"}, {"op": "test", "path": "/a/b/1", "value": 2},
        {"op": "remove", "path": "/a/b/0"}, {"op": "replace", "path": "/a/b/0", "value": 3},
        {"op": "copy", "from": "/a/b", "path": "/c"}, {"op": "move", "from": "/c/0", "path": "/a~1b"},
        {"op": "add", "path": "/users/0", "value": "carol"}]))),
    CONFIG + "merge_how: [{name: list, settings: [append]}, [dict, recurse-list]]\npackages: [a]\n",
    CONFIG + "write_files: [{path: /x, encoding: gz+b64, content: " + base64.b64encode(gzip.compress(b"x")).decode() + "}]\n",
    CONFIG + "write_files: [{path: /x, encoding: b64, content: YQ==, owner: 'a:b'}, {path: /y, content: !!binary YQ==}]\n",
    JINJA + CONFIG + "a: {{ ')' ~ \"[\" ~ {'k': (1, 2)}['k'] }}\n",
    JINJA + CONFIG + "{% for k, (v, w) in [(1, (2, 3))] %}\nx{{ k }}: 1\n{% endfor %}\n",
    JINJA + CONFIG + "{% for x in[1] %}\na{{ x }}: 1\n{% endfor %}\n",
    JINJA + CONFIG + "{% set x = 'bob' %}\nusers: [{{ x }}]\n", CONFIG + "groups: {a: {b: c}}\n",
    JINJA + CONFIG + "{% macro f() %}users: bob{% endmacro %}\n{% set y %}users: eve{% endset %}\npackages: [a]\n",
    JINJA + CONFIG + "{% for x in [1] %}\na{{ x }}: 1\n{% else %}\nb: 1\n{% endfor %}{% set y = 1 %}\nc: '{{ y }}'\n",
    mime(("cloud-config", "a: é\n")),
    JINJA + CONFIG + "users:\n{% for x in ['a', 'b'] %}\n- name: {{ x }}\n{% else %}\n  bob: 1\n{% endfor %}\n",
    CONFIG + "users: []\n", CONFIG + "users: [{name: bob, sudo: [a, b]}]\n",
    CONFIG + "chpasswd: {expire: false, list: ['alice:x']}\n", CONFIG + "chpasswd: {list: ['root:x', 'bob:y']}\n",
    CONFIG + "password: x\n", CONFIG + "user: alice\npassword: x\nchpasswd: {expire: 0}\n",
    CONFIG + "chpasswd: {users: [{name: bob}, {name: alice, type: other}]}\n",
    CONFIG + "users: [{name: alice, shell: /usr/sbin/nologin}, {name: bob, shell: /bin/false}]\n",
    CONFIG + "users: [{name: bob, ssh-authorized-keys: [x]}]\n",
    CONFIG + "write_files: [{path: /x, permissions: 0644}]\n", CONFIG + "disable_root: 0\n", CONFIG + "ssh_pwauth: 1\n",
    CONFIG + "brand_new_key: 1\n", CONFIG + "packages: [{apt: [vim]}]\n", CONFIG + "runcmd:\n",
    CONFIG + "runcmd: [a, [b, 7], null]\n", CONFIG + "user: {name: bob, ssh_authorized_keys: [x]}\n",
    CONFIG + "user: alice\n", CONFIG + "groups: {a: [bob]}\n", CONFIG + "write_files: [{content: no path}]\n",
    CONFIG + "packages: vim\n", CONFIG + "vendor_data: {enabled: on}\n",
]  # fmt: skip


@pytest.fixture(autouse=True)
def as_alice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit as alice, and leave cloud-init's schema out, which speaks of other things."""
    monkeypatch.setattr("pcocc_runtime.system.accounts.read_home", lambda: ("alice", "/home/alice"))
    monkeypatch.setattr("pcocc_runtime.submit.cloud_init.find_schema_error", lambda _text: None)


def test_what_the_guest_could_not_run_is_refused_unless_it_is_forced(ask: Ask, tmp_path: Path) -> None:
    for (text, words), guest in zip(REFUSED, ask_cloud_init([text for text, _words in REFUSED]), strict=True):
        assert is_left_out(guest) or not lets_in(guest) or "boundary" in words, (text, guest)
        (tmp_path / "ud").write_text(text, newline="")
        said = refused(ask(user_data="ud"))
        assert (
            f"user-data file {tmp_path}/ud" in said
            and words in said
            and "; --pcocc-user-data-force passes it on as it is" in said
        ), (text, said)
        forced = ask(user_data="ud", user_data_force=True)
        assert frozen(forced).groups[0].user_data == text and words in noted(forced), (text, forced)


def test_a_header_that_looks_like_a_scripts_is_refused(ask: Ask, tmp_path: Path) -> None:
    """The guest takes it for a script, whose interpreter it does not have."""
    body = "packages: [vim]\n"
    for text in (f"#!cloud-config\n{body}", f"\n#! cloud-config\n{body}", mime(("x-shellscript", f"#!cloud_config\n{body}"))):
        (tmp_path / "ud").write_text(text)
        assert "write #cloud-config in place of #!" in refused(ask(user_data="ud"))


def test_what_is_good_to_know_is_noted(ask: Ask, tmp_path: Path) -> None:
    for (text, words), guest in zip(NOTED, ask_cloud_init([text for text, _words in NOTED]), strict=True):
        (tmp_path / "ud").write_text(text, newline="")
        answer = ask(user_data="ud")
        assert words in noted(answer) and frozen(answer).groups[0].user_data == text, (text, answer)
        assert ("is nothing" in words) <= is_left_out(guest), (text, guest)


def test_nothing_is_said_of_what_the_guest_runs(ask: Ask, tmp_path: Path) -> None:
    for text, guest in zip(SILENT, ask_cloud_init(SILENT), strict=True):
        assert (
            lets_in(guest) and not guest["raised"] and not any(line.startswith("Unhandled") for line in guest["warned"])
        ), (text, guest)
        (tmp_path / "ud").write_text(text, newline="")
        answer = ask(user_data="ud")
        assert noted(answer) == "" and frozen(answer).groups[0].user_data == text, (text, answer)


def test_an_include_is_told_of(ask: Ask, tmp_path: Path) -> None:
    for text in ("#include\nhttp://a/b\n", "#include-once http://a/b\n", mime(("x-include-url", "http://a/b\n"))):
        (tmp_path / "ud").write_text(text)
        assert "is fetched by the guest (#include): pcocc cannot look at it" in noted(ask(user_data="ud"))


def test_a_part_handler_may_take_what_nobody_else_does(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_text(mime(("part-handler", "#part-handler\n"), ("x-mine", "hello")))
    assert noted(ask(user_data="ud")) == ""


def test_what_gzip_has_packed_is_passed_on_unpacked(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_bytes(gzip.compress(GOOD.encode()))
    assert frozen(ask(user_data="ud")).groups[0].user_data == GOOD
    (tmp_path / "ud").write_bytes(gzip.compress(LOSING.encode()))
    assert "ud:2: users: must be a list, not text" in refused(ask(user_data="ud"))
    (tmp_path / "ud").write_bytes(gzip.compress(GOOD.encode())[:-9])
    assert "is packed by gzip, and damaged" in refused(ask(user_data="ud", user_data_force=True))
    (tmp_path / "ud").write_bytes(gzip.compress(bytes(64 << 20)))
    assert "is larger than 64 KiB" in refused(ask(user_data="ud"))


def test_a_part_of_a_message_that_gzip_has_packed_is_looked_at(ask: Ask, tmp_path: Path) -> None:
    body = in_base64(gzip.compress(LOSING.encode()))
    text = f"MIME-Version: 1.0\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n{body}"
    assert not lets_in(ask_cloud_init([text])[0]), "as cloud-init has it"
    (tmp_path / "ud").write_text(text)
    assert "users: must be a list, not text" in refused(ask(user_data="ud"))
    (tmp_path / "ud").write_text(text[:-12])
    assert ask_cloud_init([text[:-12]])[0]["raised"]
    assert "it cannot be unpacked" in refused(ask(user_data="ud"))


def test_text_of_another_encoding_is_told_with_its_cure(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_bytes(GOOD.encode("utf-16"))
    assert "is not UTF-8 text (byte 0)\nhint: save it as UTF-8" in refused(ask(user_data="ud"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD.encode("utf-16-le"), "is not UTF-8 text (byte 1)\nhint: save it as UTF-8"),
        (GOOD.encode("utf-16-be"), "is not UTF-8 text (byte 0)\nhint: save it as UTF-8"),
        (f"{GOOD}a: é\n".encode("latin-1"), "is not UTF-8 text (byte 63)\nhint: save it as UTF-8"),
        (b"\0\xff\1\xff" * 9, "hint: binary user-data cannot be used"),
        (lzma.compress(GOOD.encode()), "is packed by xz, which cloud-init does not unpack\nhint: unpack it, or use gzip"),
        (bz2.compress(GOOD.encode()), "is packed by bzip2"), (b"PK\3\4", "is packed by zip"),
    ],
    ids=["utf-16-le", "utf-16-be", "latin-1", "binary", "xz", "bzip2", "zip"],
)  # fmt: skip
def test_what_is_no_text_is_told_by_its_kind(ask: Ask, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "ud").write_bytes(data)
    assert said in refused(ask(user_data="ud"))


def test_all_members_of_what_gzip_has_packed_count(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_bytes(gzip.compress(GOOD.encode()) + gzip.compress(b"hostname: x\n"))
    assert frozen(ask(user_data="ud")).groups[0].user_data == f"{GOOD}hostname: x\n"


def test_a_template_can_pass_anything_on(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_text(LOSING)
    mine = f"mine: {{inherits: tiny, user-data: {tmp_path}/ud, user-data-force: true}}\n"
    user_template(tmp_path, f"{mine}yours: {{inherits: tiny, user-data: {{users: bob}}}}\n")
    assert "users: must be a list, not text" in noted(ask("mine")) and frozen(ask("mine")).groups[0].user_data == LOSING
    assert "mine" not in refused(ask("yours")) and "users: must be a list" in noted(ask("yours", user_data_force=True))


def test_the_force_needs_a_template(ask: Ask) -> None:
    assert refused(ask(None, user_data_force=True)).startswith("pcocc: error: --pcocc-user-data-force needs --pcocc-template")


def test_the_same_note_is_said_once_and_few_of_many(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "ud").write_text("hello\n")
    user_template(tmp_path, "mine: {inherits: tiny, instance-id: 'i-%{vm_rank}'}\n")
    assert noted(ask("mine:5,tiny", user_data="ud")).count("\n") == 0
    (tmp_path / "ud").write_text(CONFIG + "".join(f"k{n}: 010\n" for n in range(50)))
    assert noted(ask(user_data="ud")).splitlines()[8:] == ["and 42 more notes; 'pcocc template check' shows all of a template's"]


def test_a_text_in_place_of_its_path_names_its_cure(ask: Ask, tmp_path: Path) -> None:
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data: |\n    #cloud-config\n    packages: [vim]\n")
    said = refused(ask("mine"))
    assert (
        "templates.yaml:3: mine.user-data: must be the path of a file or the keys of a cloud-config" in said
        and "leave out the '|' and the line #cloud-config" in said
    )
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data: |\n    #!/bin/sh\n    exit 0\n")
    assert refused(ask("mine")).endswith("\nhint: write the text into a file, and its path here")
