"""The pcocc command: what it prints where, and its exit status."""

import json
import os
import re
import tempfile
from pathlib import Path

import pytest

from pcocc_runtime import __version__
from pcocc_runtime.cli import main as cli
from tests.unit.fake_site import write_images, write_site


def test_list_shows_a_line_for_each_template(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.parent / "user/templates.yaml").write_text("mine: {inherits: big, description: 'two\n\n  lines'}")
    assert cli.main(["template", "list"]) == 0
    out, err = capsys.readouterr()
    image = site.parent / "tiny.qcow2"
    lines = [line.split() for line in out.splitlines()]
    assert err == "" and lines[0][:3] == ["NAME", "FROM", "CPUS"]
    assert lines[4] == ["mine", "user", "4", "2G", "bare", str(image), "two"]
    assert [line[0] for line in lines[1:]] == ["big", "empty", "fast", "mine", "tiny"]


def test_list_as_json_has_every_setting(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["template", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["big"]["settings"]["cpus"] == {"value": 4, "inherited-from": None}
    assert found["big"]["settings"]["image"]["inherited-from"] == "tiny"


def test_list_as_names_is_for_scripts(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.parent / "user/templates.yaml").write_text("mine: {inherits: nowhere}")
    assert cli.main(["template", "list", "--names"]) == 0
    assert capsys.readouterr().out == "big\nempty\nfast\ntiny\n"


def test_show_tells_where_a_setting_comes_from(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["template", "show", "big"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["cpus", "4", "this template"] in lines
    [image] = [line for line in lines if line[:1] == ["image"]]  # a long path is cut
    assert str(site.parent / "tiny.qcow2").startswith(image[1].removesuffix("...")) and image[2] == "tiny"
    assert cli.main(["template", "show", "big", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "big"


def test_an_unknown_template_is_an_error(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["template", "show", "nope"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("pcocc: error: there is no template 'nope'\nhint: templates: big, empty, fast, tiny;")


def test_check_tells_all_problems_at_once(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = site.parent / "user/templates.yaml"
    user.write_text(
        "a: {cpus: x}\nb: {inherits: zz}\ntiny: {}\nc: {resource-set: gone}\nd: {cpus: 1, emulator-cores: 1}\ne: {inherits: d}\n"
        "f: {inherits: g}\ng: {inherits: f}\nh: {inherits: f}\n"
    )
    assert cli.main(["template", "check"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pcocc: error: ")]
    assert [line.split(f"{user}:")[1].split(":")[0] for line in errors] == ["1", "3", "2", "4", "5", "8"]


def test_a_wrong_value_hides_no_other(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = site.parent / "user/templates.yaml"
    user.write_text("a: {cpus: 2020-13-45}\nb: {cpus: 1}\nb: {memory: x}\nc: {cpus: 0}\n")
    assert cli.main(["template", "check"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pcocc: error: ")]
    assert [line.split(f"{user}:")[1].split(": ")[:2] for line in errors] == [
        ["3", "b"], ["1", "a.cpus"], ["3", "b.memory"], ["4", "c.cpus"],
    ]  # fmt: skip


def test_check_tells_what_a_job_would_be_refused_for(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "pcocc.yaml").write_text("users-may-set: {custom-args: [], host-paths: [/nowhere], qemu-bin: []}\n")
    (site / "resources.yaml").write_text(
        "default: {networks: [lan], default: true}\nlab: {users: [nosuchuser]}\nfast: {networks: [ib]}\nbare: {}\n"
    )
    (site / "templates.yaml").write_text("tiny: {custom-args: [-x], mount-points: {a: /nowhere}}\nfast: {resource-set: fast}\n")
    user = site.parent / "user/templates.yaml"
    user.write_text("""\
good: {inherits: tiny, cpus: 2}
bad:
  inherits: tiny
  custom-args: ['-y']
  mount-points: {b: /usr}
  qemu-bin: /bin/sh
  image: /gone
  user-data: /gone
  kernel: /gone
  instance-id: '%{what}'
  resource-set: lab
net: {resource-set: fast, devices: [nvme]}
""")
    assert cli.main(["template", "check"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pcocc: error: ")]
    assert sorted(line.removeprefix(f"pcocc: error: {user}:").split(": ")[:2] for line in errors if str(user) in line) == [
        ["10", "bad.instance-id"], ["11", "bad.resource-set"], ["12", "net.devices[0]"], ["4", "bad.custom-args[0]"],
        ["5", "bad.mount-points.b"], ["6", "bad.qemu-bin"], ["7", "bad.image"], ["8", "bad.user-data"], ["9", "bad.kernel"],
    ]  # fmt: skip
    assert [line for line in errors if str(user) not in line] == [
        f"pcocc: error: {site}/templates.yaml:1: tiny.mount-points.a: mount 'a': directory /nowhere cannot be read: No"
        " such file or directory"
    ]


def test_check_tells_every_item_of_a_setting(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = site.parent / "user/templates.yaml"
    user.write_text("""\
many:
  inherits: tiny
  mount-points:
    a: /gone/a
    b: /gone/b
  persistent-drives:
  - /gone/c
  - /gone/d: {mmp: cluster}
  kernel:
    path: /gone/e
    initrd: /gone/f
    append: '%{g}'
  custom-args:
  - '%{h}'
  - fine
  - '%{i}'
both:
  resource-set: gone
  cpus: 9
  emulator-cores: 9
  disk-model: ide
  persistent-drives: [/g/1, /g/2, /g/3, /g/4, /g/5]
orphan:
  inherits: nowhere
  mount-points: {a: /gone/a}
  emulator-cores: 1
wrong:
  persistent-drives:
  - x
  - /y: {format: z}
""")
    assert cli.main(["template", "check"]) == 1
    lines = capsys.readouterr().err.splitlines()
    found = sorted(int(line.removeprefix(f"pcocc: error: {user}:").split(":")[0]) for line in lines if "error: " in line)
    assert found == [4, 5, 7, 8, 10, 11, 12, 14, 16, 18, 20, *[22] * 6, 24, 25, 29, 30]


def test_an_image_is_no_parent(site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(site.parent))
    write_images(site.parent / ".pcocc/images", "deb")
    user = site.parent / "user/templates.yaml"
    user.write_text("x: {inherits: deb, cpus: 2}\n")
    for line in (["list"], ["show", "x"], ["check"]):
        assert cli.main(["template", *line]) == 1
        _out, err = capsys.readouterr()
        assert err == f"pcocc: error: {user}:1: x.inherits: 'deb' is an image, not a template\nhint: write image: deb\n"
    user.write_text("x: {image: deb, cpus: 2}\n")
    assert cli.main(["template", "list"]) == 0


def test_images_that_may_be_missing_are_told(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(site.parent))
    repos = site.parent / "user/repos.yaml"
    (site.parent / "plain").write_text("")
    key = f"{repos}:1: repos[0].pathh: unknown setting"
    for text, said in (
        ("repos: [{name: user, pathh: /x}]", key),
        (f"repos: [{{name: user, path: {site.parent}/plain}}]", "/plain is not an image"),
    ):
        repos.write_text(text)
        for verb in ("list", "check"):
            assert cli.main(["template", verb]) == 1
            out, err = capsys.readouterr()
            assert said in err and ("big" in out) == (verb == "list")
        assert cli.main(["template", "show", "deb"]) == 1
        err = capsys.readouterr().err
        assert "there is no template 'deb'\nhint: images may be missing: " in err and said in err
        assert cli.main(["template", "show", "tiny"]) == cli.main(["template", "list", "--names"]) == 0
        capsys.readouterr()


def test_check_does_not_count_images(site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(site.parent))
    write_images(site.parent / ".pcocc/images", "deb")
    (site / "templates.yaml").write_text("tiny: {cpus: 1}\n")
    assert cli.main(["template", "check"]) == 0
    assert capsys.readouterr().out == "1 template, no error\n"


def test_list_leaves_nothing_out_in_silence(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = site.parent / "user/templates.yaml"
    user.write_text("a: {inherits: b}\nb: {inherits: a}\n_c: {cpus: 1}\nd: {inherits: nowhere}\n")
    assert cli.main(["template", "list"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "big", "empty", "fast", "tiny"]
    places = [line.split(f"{user}:")[1].split(": ")[:2] for line in err.splitlines() if "error: " in line]
    assert places == [["3", "_c"], ["2", "b.inherits"], ["4", "d.inherits"]]


def test_show_tells_what_is_wrong_with_that_template_alone(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = site.parent / "user/templates.yaml"
    user.write_text("a: {cpus: x}\nb: {inherits: a, mount-points: {d: /x, e: {path: /y, readonly: true}}}\nc: {memry: 1}\n")
    assert cli.main(["template", "show", "b"]) == 1
    out, err = capsys.readouterr()
    assert "mount-points  d: {path: /x, readonly: false, type: 9p}  this template\n              e: {" in out
    assert err.count("error: ") == 1 and f"{user}:1: a.cpus: " in err
    assert cli.main(["template", "show", "tiny"]) == 0
    assert cli.main(["template", "show", "nope"]) == 1
    assert "there is no template 'nope'" in capsys.readouterr().err
    user.write_text("a: [\n")
    assert cli.main(["template", "show", "tiny"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("template tiny, ") and f"{user}:2: not valid YAML" in err


def test_config_check_covers_every_file(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{site}: 4 templates, 3 resource sets, 2 networks, no error\n"
    assert "policy.lua does not exist" in err
    for name in ("pcocc", "networks", "resources", "templates", "policy"):
        (site / f"{name}.yaml").write_text("zz: [\n")
    assert cli.main(["config", "check"]) == 1
    assert capsys.readouterr().err.count(".yaml:2: not valid YAML") == 5


def test_config_check_tells_a_wrong_network_once(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is reported, and not what follows from it."""
    lan = "lan:\n  type: ethernet\n  settings:\n    mtu: 1\n    reverse-nat: {vm-port: 0, min-host-port: 0}\n"
    (site / "networks.yaml").write_text(f"{lan}ib: {{type: infiniband}}\n")
    (site / "resources.yaml").write_text("default: {networks: [lan], default: true}\nfast: {networks: [ib, x]}\nbare: {}\n")
    assert cli.main(["config", "check"]) == 1
    said = [line.removeprefix(f"pcocc: error: {site}/") for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert [":".join(line.split(":")[:3]) for line in said] == [
        "networks.yaml:4: lan.settings.mtu",
        "networks.yaml:5: lan.settings.reverse-nat.vm-port",
        "networks.yaml:5: lan.settings.reverse-nat.min-host-port",
        "networks.yaml:5: lan.settings.reverse-nat",
        *["networks.yaml:6: ib.settings"] * 3,
        "resources.yaml:2: fast.networks[1]",
    ]


@pytest.mark.parametrize("name", ["networks", "resources"])
def test_an_unreadable_file_is_the_only_problem(site: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (site / f"{name}.yaml").write_text("a: [\n")
    assert cli.main(["config", "check"]) == 1
    assert capsys.readouterr().err.count("pcocc: error: ") == 1


def test_config_check_notes_what_is_no_longer_needed(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (site / "networks.yaml").open("a") as stream:
        stream.write("old: {type: ethernet, settings: {ext-network: 10.201.0.0/16}}\n")
    assert cli.main(["config", "check"]) == 0
    assert f"pcocc: note: {site}/networks.yaml:5: old.settings.ext-network: no longer needed: " in capsys.readouterr().err


def test_config_check_notes_names_that_nobody_has(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (site / "resources.yaml").open("a") as stream:
        stream.write("lab: {users: [root, nosuchuser], groups: [root, nosuchgroup]}\n")
    assert cli.main(["config", "check"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "nosuch" in line]
    assert said == [
        f"pcocc: note: {site}/resources.yaml: lab.users: there is no user 'nosuchuser' on this host",
        f"pcocc: note: {site}/resources.yaml: lab.groups: there is no group 'nosuchgroup' on this host",
    ]


def test_only_unprivileged_users_can_check_another_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        directory = write_site(Path(name) / "etc", networks="lan: {type: ether}\n")
        monkeypatch.setenv("PCOCC_SYSTEM_CONF_DIR", str(directory))
        if me == 0:
            cli.main(["config", "check"])
            assert str(directory) not in capsys.readouterr().err
            os.seteuid(65534)
        try:
            assert cli.main(["config", "check"]) == 1
        finally:
            os.seteuid(me)
        assert f"{directory}/networks.yaml:1: lan.type: expected one of ethernet," in capsys.readouterr().err


def test_a_configuration_that_is_not_there_is_not_right(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: str(site / "typo"))
    assert cli.main(["config", "check"]) == 1
    assert capsys.readouterr().err.startswith(f"pcocc: error: {site}/typo: is not a directory\nhint: ")


def test_config_policy_writes_the_table_beside_the_files(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "policy"]) == 0
    path = site / "policy.lua"
    assert path.stat().st_mode & 0o777 == 0o644
    assert cli.main(["config", "policy", "-o", "-"]) == 0
    assert capsys.readouterr().out.endswith(path.read_text())
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().err == ""
    (site / "pcocc.yaml").write_text("max-vms: 3\n")
    cli.main(["config", "check"])
    assert "does not match the YAML files" in capsys.readouterr().err


def test_a_wrong_configuration_writes_no_policy(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "templates.yaml").write_text("a: 5\n")
    assert cli.main(["config", "policy"]) == 1
    assert not (site / "policy.lua").exists()
    assert "templates.yaml:1: a: expected a mapping" in capsys.readouterr().err


def test_a_policy_that_cannot_be_written_is_an_error(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "policy", "-o", "/proc/nowhere/policy.lua"]) == 1
    assert capsys.readouterr().err.startswith("pcocc: error: /proc/nowhere/policy.lua")


@pytest.mark.parametrize("line", [[], ["template"], ["bogus"], ["template", "show"], ["config", "check", "x"]])
def test_wrong_usage_ends_with_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(line)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("pcocc: error: ") and "\nhint: pcocc" in err


@pytest.mark.parametrize("line", [["--version"], ["--help"], ["template", "--help"], ["config", "policy", "--help"]])
def test_help_and_version_go_to_stdout(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(line)
    assert caught.value.code == 0
    assert ("pcocc " + __version__ if line == ["--version"] else "usage: pcocc") in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["list", "show", "verify", "import", "export", "copy", "resize", "delete"])
def test_help_says_what_a_command_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["image", verb, "--help"])
    usage, sentence, *_ = capsys.readouterr().out.split("\n\n")
    assert (
        usage.startswith("usage: ")
        and re.match(r"[A-Z][^:]*\b", sentence)
        and not sentence.startswith(("positional", "options"))
    )


def test_files_that_are_not_read_for_their_suffix_are_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (site, site.parent / "user"):
        (folder / "templates.d").mkdir(exist_ok=True)
        (folder / "templates.d/more.yml").write_text("more: {image: tiny}")
        (folder / "templates.d/LOUD.YAML").write_text("")
    (site / "networks.yml").write_text("")
    for words in (["template", "check"], ["template", "list"], ["config", "check"]):
        assert cli.main(words) == 0
        err = capsys.readouterr().err
        assert f"note: {site}/templates.d/more.yml is not read: name it more.yaml" in err
        assert f"{site}/networks.yml is not read" in err and f"{site}/templates.d/LOUD.YAML is not read: name it LOUD.yaml" in err
        assert (f"{site.parent}/user/templates.d/more.yml is not read" in err) == (words[0] == "template")
    assert cli.main(["template", "list", "--names"]) == 0 and capsys.readouterr().err == ""


def test_a_template_with_slashes_in_its_name_loads(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.parent / "user/templates.yaml").write_text("group/mine: {inherits: big}\nother: {inherits: group/mine}")
    assert cli.main(["template", "show", "other"]) == 0 and cli.main(["template", "check"]) == 0
    assert cli.main(["template", "list", "--names"]) == 0
    assert "group/mine\n" in capsys.readouterr().out


def test_a_template_whose_image_is_a_url_says_to_import_it(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.parent / "user/templates.yaml").write_text("mine: {inherits: big, image: 'docker://quay.io/a/b:1'}")
    assert cli.main(["template", "check"]) == 1
    assert "import it first: pcocc image import docker://quay.io/a/b:1 NAME" in capsys.readouterr().err
