"""What the real cloud-init (22.4 in Debian 12, 25.1 in Debian 13) says of user-data, and makes of what we tell a guest."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.guest import seed
from pcocc_runtime.guest.cloud_config import find_merge_obstacle, parse_cloud_config, with_plain_header
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.submit import cloud_init
from tests.unit.fake_site import Ask, frozen, noted, refused, user_template
from tests.unit.guest.cloud_python import start_cloud_python
from tests.unit.guest.guests import ALICE, KEYS

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[3]
INVALID = " is not a valid cloud-config: "


@pytest.mark.parametrize(
    "text",
    [
        "#cloud-config\n",
        "#cloud-config\n{}\n",
        "#cloud-config\npackages: [vim]\nruncmd: [[a, b], c]\n",
        "#cloud-config\nssh_pwauth: maybe\n",  # deprecated only
    ],
)
def test_right_user_data_passes(text: str) -> None:
    assert cloud_init.find_schema_error(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("packages: vim\n", "packages: 'vim' is not of type 'array'"),
        ("packages: vim\nntp: 7\n", "ntp: 7 is not of type"),
        ("write_files: [{content: x}]\nssh_pwauth: maybe\n", "write_files.0: 'path' is a required property"),
    ],
)
def test_what_the_schema_does_not_know_is_noted_in_a_sentence(ask: Ask, tmp_path: Path, text: str, said: str) -> None:
    found = cloud_init.find_schema_error(f"#cloud-config\n{text}")
    assert found and found.startswith(said) and not re.search("/tmp|deprecat|schema|Error", found), found
    path = tmp_path / "ud"
    path.write_text(f"#cloud-config\n{text}")
    assert noted(ask(user_data="ud")).startswith(f"user-data file {path}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#cloud-config\n- a\n", INVALID + "it must be a mapping, not a list"),
        ("#cloud-config\nhello\n", INVALID + "it must be a mapping, not text"),
        ("\n\n  #Cloud-Config\nno\n", INVALID + "it must be a mapping, not true or false"),
        (
            "#cloud-config\nx: é\na: \x07\n",
            INVALID + "it is not valid YAML in line 3: unacceptable character #x0007: special characters",
        ),
        (
            "#cloud-config\na: 1\n---\nb: 1\n",
            INVALID + "it is not valid YAML in line 3: expected a single document in the stream but found another",
        ),
        ("#cloud-config\na: 2001-99-99\n", INVALID + "it is not valid YAML: month must be in 1..12"),
        (
            "#cloud-config\na: 1\nb: !x y\n",
            INVALID + "it is not valid YAML in line 3: could not determine a constructor for the tag '!x'",
        ),
        (
            "#cloud-config\na: {[c]: d}\n",
            INVALID + "it is not valid YAML in line 2: while constructing a mapping found unhashable key",
        ),
        ("#cloud-config\n" + "[" * 9999, INVALID + "its lists and mappings are nested too deeply"),
    ],
)
def test_what_is_no_mapping_is_refused_without_cloud_init(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "ud"
    path.write_text(text)
    answer = refused(ask(user_data="ud"))
    assert f"user-data file {path}{said}" in answer and "\nhint: " in answer


@pytest.mark.parametrize(
    "text",
    ["#cloud-config", "#cloud-config\n# nothing\n", "#cloud-config\nnull\n", "#cloud-config\na: !!binary aGk=\n"],
)
def test_what_says_nothing_passes_without_cloud_init(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "ud").write_text(text)
    answer = ask(user_data="ud")
    assert frozen(answer).groups[0].user_data == text and noted(answer) == ""


@pytest.mark.parametrize(
    "head",
    ["#cloud-config # mine\n", "#cloud-config-x\n", "\n \n#cloud-config\n", "#CLOUD-CONFIG\n", " #Cloud-config \r\n"],
)
def test_every_header_that_cloud_init_takes_is_checked(ask: Ask, tmp_path: Path, head: str) -> None:
    kinds = "from cloudinit import handlers; import sys; print(handlers.type_from_starts_with(sys.argv[1]))"
    assert (
        subprocess.run(["/usr/bin/python3", "-c", kinds, head], check=True, capture_output=True, text=True).stdout
        == "text/cloud-config\n"
    )
    (tmp_path / "ud").write_text(f"{head}packages: vim\n", newline="")
    assert "packages: 'vim' is not of type 'array'" in noted(ask(user_data="ud"))
    (tmp_path / "ud").write_text(f"{head}users: bob\n", newline="")
    assert "users: must be a list, not text" in refused(ask(user_data="ud"))
    (tmp_path / "ud").write_text(f"{head}packages: [vim]\n", newline="")
    assert frozen(ask(user_data="ud")).groups[0].user_data == f"{head}packages: [vim]\n"


def test_lines_are_counted_as_in_the_file() -> None:
    assert with_plain_header("\n\n#CLOUD-config # x\na: 1\n").splitlines() == ["#cloud-config # x", "", "", "a: 1"]


@pytest.mark.parametrize(
    "text",
    [
        "packages: [vim]\n",
        "# cloud-config\nruncmd: [a]\nx: 1\n",
        "\ufeff#cloud-config\nusers: []\n",
        "---\nusers: []\n",
    ],
)
def test_a_cloud_config_that_no_guest_would_know_is_refused(ask: Ask, tmp_path: Path, text: str) -> None:
    (tmp_path / "ud").write_text(text)
    assert (
        f"user-data file {tmp_path}/ud does not begin with #cloud-config: the guest's cloud-init would ignore"
        " it\nhint: "
        in refused(ask(user_data="ud"))
    )


TALOS = "version: v1alpha1\nmachine: {type: worker, network: {}}\ncluster: {}\n"
MIME = "Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\nusers: a\n"
OTHERS = ["#!/bin/sh\nexit 0\n", "#include\nhttp://a/b\n", "## template: jinja\n#cloud-config\n{{ x }}\n", "",
          "#cloud-config-archive\n- '#!x'\n",
          '{"ignition": {"version": "3.0.0"}, "users": []}', "#ps1_sysnative\nusers: x\n", "rem cmd\nusers\n", "hello",
          TALOS, MIME,
          "#Cloud-Config-JSONP\n[]\n", "- users\n", "a: [\n"]  # fmt: skip


@pytest.mark.parametrize("text", OTHERS)
def test_user_data_of_another_kind_is_left_alone(ask: Ask, tmp_path: Path, text: str) -> None:
    (tmp_path / "ud").write_text(text)
    assert frozen(ask(user_data="ud")).groups[0].user_data == text


def test_a_mistake_is_told_at_submission(ask: Ask, tmp_path: Path) -> None:
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data: {packages: vim}\n")
    assert "templates.yaml:3: mine.user-data: packages: 'vim' is not of type 'array'" in noted(ask("mine"))


@pytest.mark.parametrize("command_user", [None, "root", "debian"])
@pytest.mark.parametrize("mounts", [(), (Mount("data", "/x", "9p", True), Mount("fast", "/y", "virtiofs"))])
@pytest.mark.parametrize(
    "login", [ALICE, seed.JobUser("root", 0, 0, "/root"), seed.JobUser("b-2", 70000, 70001, "/h/b", 'B "2": x')]
)
def test_cloud_init_takes_what_we_tell_it(login: seed.JobUser, mounts: tuple[Mount, ...], command_user: str | None) -> None:
    text = seed.render_vendor_data(3, "vcluster", login, KEYS, command_user, mounts)
    assert cloud_init.find_schema_error(text) is None


def merge(directory: Path, user_data: str, **options: object) -> tuple[dict[str, list[object]], dict[str, dict[str, object]]]:
    """Return the configuration and the users that cloud-init makes of a cloud-config of the user's beside our vendor-data."""
    directory.mkdir(exist_ok=True)
    (directory / "user-data").write_text(f"#cloud-config\n{user_data}")
    text = seed.render_vendor_data(1, "vcluster", ALICE, KEYS, mounts=[Mount("data", "/x", "virtiofs")], **options)
    (directory / "vendor-data").write_text(text)
    argv = [start_cloud_python() / "cloud-python", ROOT / "tests/unit/guest/merge_cloud_config.py", directory]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return found["config"], found["users"]


@pytest.mark.parametrize(
    ("key", "ours", "theirs"),
    [
        ("write_files", ["/etc/pcocc/hostfile", "/etc/ssh/ssh_known_hosts"], "{path: /etc/pcocc/hostfile, content: mine}"),
        ("users", ["root", "alice"], "{name: bob}"),
        ("mounts", ["data"], "[data]"),
        ("bootcmd", ["sh"], "[echo, mine]"),
    ],
)
@pytest.mark.parametrize("how", ["", "merge_how: list()+dict(replace)\nmerge_type: list()+dict(replace)\n"])
def test_lists_of_the_user_follow_ours(tmp_path: Path, key: str, ours: list[str], theirs: str, how: str) -> None:
    """Our entries come first: of two files with the same path the user's wins, and `[TAG]` cancels a mount, as cloud-init
    documents.
    """
    found, _users = merge(tmp_path, f"{how}{key}: [{theirs}]\n")
    first = [one.get("path") or one["name"] if isinstance(one, dict) else one[0] for one in found[key][:-1]]
    assert first[: len(ours)] == ours and found[key][-1] == yaml.safe_load(theirs)
    assert {"write_files", "users", "mounts", "bootcmd"} <= found.keys() and not {"merge_how", "merge_type"} & found.keys()


def has_keys(directory: Path, user_data: str) -> bool:
    """Tell whether cloud-init would let the job's own key in, as the user of the job and as root, with such a cloud-config."""
    try:
        _found, users = merge(directory, user_data)
    except subprocess.CalledProcessError as error:
        assert "normalize_users_groups" in error.stderr, "its module of users fails, and makes none"
        return False
    return all(users.get(name, {}).get("ssh_authorized_keys") == [KEYS.user_public] for name in ("root", "alice"))


def test_single_values_are_the_users(tmp_path: Path) -> None:
    found, _users = merge(tmp_path, "disable_root: true\ntimezone: UTC\nssh_deletekeys: true\n")
    assert (found["disable_root"], found["timezone"], found["ssh_deletekeys"]) == (True, "UTC", True)


def test_whoever_runs_commands_can_be_told_more_of(tmp_path: Path) -> None:
    """The job's user can be reached, whatever user-data says about this account: uid and keys are ours, other settings
    are added.
    """
    _found, users = merge(
        tmp_path, "users: [default, {name: alice, uid: 7, groups: [video], ssh_authorized_keys: [mine]}, {name: bob}]\n"
    )
    assert sorted(users) == ["alice", "bob", "debian", "root"] and users["debian"]["default"] is True
    assert {key: users["alice"][key] for key in ("uid", "groups", "ssh_authorized_keys")} == {
        "uid": ALICE.uid, "groups": ["video"], "ssh_authorized_keys": [KEYS.user_public],
    }  # fmt: skip


def test_the_images_own_user_stays_reachable(tmp_path: Path) -> None:
    _found, users = merge(tmp_path, "users: [default]\n", command_user="debian")
    assert users["debian"]["ssh_authorized_keys"] == [KEYS.user_public] and users["debian"]["shell"] == "/bin/bash"


SHUT_OUT = [
    ("alice", "users: must be a list, not text: it would replace the user that commands run as in the VM"),
    ("default", "users: must be a list, not text: it would"),
    ("{name: alice}", "users: must be a list, not a mapping: it would"),
    ("{bob: true}", "users: must be a list, not a mapping: it would"),
    ("'alice,bob'", "users: must be a list, not text: it would"),
    ("", "users: must be a list, not nothing: it would"),
    ("\n- default\n- 1000", "users[1]: is not a user that cloud-init can make, and it would make none of the others either"),
    ("[default, yes]", "users[1]: is not a user that cloud-init can make"),
    ("[~]", "users[0]: is not a user that cloud-init can make"),
    ("[2001-01-01]", "users[0]: is not a user that cloud-init can make"),
    ("[[{name: bob}]]", "users[0]: is not a user that cloud-init can make"),
    ("[{name: [bob]}]", "users[0]: is not a user that cloud-init can make"),
]  # fmt: skip


@pytest.mark.parametrize(("users", "said"), SHUT_OUT)
def test_users_that_would_shut_out_whoever_runs_commands_are_refused(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: str, said: str
) -> None:
    assert not has_keys(tmp_path, f"users: {users}\n"), "as cloud-init has it"
    line = 4 if "\n" in users else 2
    (tmp_path / "home/ud").write_text(f"#cloud-config\nusers: {users}\n")
    assert f"pcocc: error: user-data file {tmp_path}/home/ud:{line}: {said}" in refused(ask(user_data="home/ud"))
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data: ~/ud\n")
    assert f"templates.yaml:3: mine.user-data: user-data file {tmp_path}/home/ud:{line}: {said}" in refused(ask("mine"))
    monkeypatch.setenv("PATH", "/nowhere")  # cloud-init need not be installed
    users = users.replace("\n", "\n    ")
    user_template(
        tmp_path,
        f"mine:\n  inherits: tiny\n  user-data:\n    packages: []\n    users: {users}\nchild: {{inherits: mine}}\n",
    )
    for template in ("mine", "child"):
        text = refused(ask(template))
        assert f"templates.yaml:{line + 3}: mine.user-data.{said}" in text and "\nhint: " in text


@pytest.mark.parametrize(
    "users",
    ["[alice]", "[default]", "[alice, {name: bob}]", "[default, {name: alice, groups: [video]}]", "['alice,root']",
     "[[bob, alice]]", "[[7]]",
     "[{name: 7}]", "[{}]", "[{name: null}]", "[]"],
)  # fmt: skip
def test_users_that_are_added_to_ours_pass(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: str) -> None:
    """A word in the list is a user that cloud-init makes where ours is none of that name: ours come first, and have the say."""
    assert has_keys(tmp_path, f"users: {users}\n"), "as cloud-init has it"
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "ud").write_text(f"#cloud-config\nusers: {users}\n")
    assert frozen(ask(user_data="ud")).groups[0].user_data == f"#cloud-config\nusers: {users}\n"


def test_a_user_whose_settings_are_no_words_shuts_all_out_of_a_file_only(ask: Ask, tmp_path: Path) -> None:
    """The keys of a template are text, whatever they look like."""
    assert not has_keys(tmp_path, "users: [{7: bob}]\n") and has_keys(
        tmp_path / "template", "users: [{'7': bob}]\n"
    ), "as cloud-init has it"
    (tmp_path / "ud").write_text("#cloud-config\nusers: [{7: bob}]\n")
    assert f"{tmp_path}/ud:2: users[0]: is not a user that cloud-init can make" in refused(ask(user_data="ud"))
    found = find_merge_obstacle(parse_yaml("users: [{7: bob}]", "t").plain())
    assert found is None


def test_users_that_the_yaml_of_a_template_brings_from_elsewhere_are_told_where_they_stand(ask: Ask, tmp_path: Path) -> None:
    user_template(
        tmp_path,
        "a: {inherits: tiny, user-data: &data {users: bob}}\nmine:\n  inherits: tiny\n  user-data:\n    <<: *data\n",
    )
    assert "templates.yaml:1: mine.user-data.users: must be a list" in refused(ask("mine"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n  " + "- " * 20000, "lists and mappings are nested more than 100 levels deep"),
        ("b0: &b0 [x, x]\n" + "".join(f"b{n}: &b{n} [*b{n - 1}, *b{n - 1}]\n" for n in range(1, 40)), "aliases make this too"),
    ],
)
def test_a_cloud_config_that_would_take_all_memory_is_refused(ask: Ask, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "ud").write_text(f"#cloud-config\n{text}")
    assert re.search(rf"user-data file {tmp_path}/ud:\d+: .*{said}", refused(ask(user_data="ud")))


def test_other_encodings_of_the_locale_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "cloud-init").write_text("#!/bin/sh\ngrep -q é $3 && echo schema errors: é >&2\nexit 1\n", encoding="utf-8")
    (tmp_path / "cloud-init").chmod(0o755)
    code = "from pcocc_runtime.submit.cloud_init import _ask; print(ascii(_ask('cloud-init', '# \\xe9')))"
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("'\\xe9'\n", "")


@pytest.mark.parametrize("text", ["users: [default, {name: bob}]", "users: []", "x: 1", "a: *b", "- users", "&a [*a]"])
def test_other_users_are_not(text: str) -> None:
    assert find_merge_obstacle(parse_cloud_config(f"#cloud-config\n{text}\n")[0]) is None


@pytest.mark.parametrize(
    ("value", "takes"),
    [
        ("{enabled: false}", False), ("{enabled: null}", False), ("{enabled: 'no'}", False), ("7", False), ("", False),
        ("{disabled_handlers: [text/cloud-config]}", False), ("{enabled: 'On'}", True), ("{prefix: [x]}", True), ("{}", True),
        ("{enabled: true, disabled_handlers: [text/x-shellscript]}", True), ("{disabled_handlers: null}", True),
    ],
)  # fmt: skip
def test_user_data_that_turns_vendor_data_off_is_known(tmp_path: Path, value: str, takes: bool) -> None:
    assert bool(merge(tmp_path, f"vendor_data: {value}\n")[1].get("alice")) is takes, "as cloud-init has it"
    assert (find_merge_obstacle({"vendor_data": yaml.safe_load(value)}) is None) is takes


def test_user_data_that_turns_vendor_data_off_is_refused(ask: Ask, tmp_path: Path) -> None:
    said = (
        "vendor_data: keeps cloud-init from reading pcocc's own settings, without which no command can run in the"
        " VM\nhint: leave vendor_data out"
    )
    (tmp_path / "ud").write_text("#cloud-config\nvendor_data: {enabled: false}\n")
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data:\n    vendor_data: {enabled: false}\n")
    assert f"user-data file {tmp_path}/ud:2: {said}" in refused(ask(user_data="ud"))
    assert f"templates.yaml:4: mine.user-data.{said}" in refused(ask("mine"))
    assert merge(tmp_path, "vendor_data2: {enabled: false}\n")[1]["alice"]
    assert find_merge_obstacle({"vendor_data2": {"enabled": False}}) is None, "pcocc gives no such one"


def test_an_octal_that_yaml_took_for_a_number_is_explained(ask: Ask, tmp_path: Path) -> None:
    """cloud-init itself accepts the number as it was meant (cc_write_files.decode_perms); only its schema does not."""
    quotes = "put that value in quotes: YAML takes a bare 0644 for a number"
    (tmp_path / "ud").write_text("#cloud-config\nwrite_files: [{path: /x, permissions: 0644}]\n")
    assert quotes in noted(ask(user_data="ud"))
    user_template(tmp_path, "mine: {inherits: tiny, user-data: {write_files: [{path: /x, permissions: 0644}]}}\n")
    assert "write_files.0.permissions: 420 is not of type 'string'" in noted(ask("mine")) and quotes in noted(ask("mine"))
