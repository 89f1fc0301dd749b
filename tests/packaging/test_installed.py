"""The packages in a clean machine: installed, used, upgraded, removed, purged."""

import pytest

from tests.packaging.machine import Machine

pytestmark = pytest.mark.packages

OPTIONS = ("--pcocc-template=", "--pcocc-vm", "--no-pcocc-vm", "--pcocc-image=", "--pcocc-mount=", "--pcocc-user-data=")
SITE_FILES = ("networks", "pcocc", "policy", "repos", "resources", "templates")
LINK = "/etc/slurm/plugstack.conf.d/pcocc.conf"
PLACES = (
    "/usr/bin/pcocc", "/usr/lib/pcocc/pcocc_runtime/node/main.py", "/usr/libexec/pcocc/node",
    "/usr/share/pcocc/probe.img", "/usr/share/pcocc/lua/job_submit.lua", "/usr/share/pcocc/plugstack.conf",
    "/usr/share/man/man1/pcocc.1.gz", "/usr/share/man/man5/pcocc-resources.yaml.5.gz",
    "/usr/share/bash-completion/completions/pcocc", "/usr/lib/sysusers.d/pcocc-cache.conf", "/usr/lib/tmpfiles.d/pcocc.conf",
    "/usr/lib/systemd/system/pcocc-cache.socket", "/usr/lib/systemd/system/pcocc-cache@.service",
    "/usr/lib/x86_64-linux-gnu/slurm-wlm/pcocc.so", "/usr/lib/x86_64-linux-gnu/slurm-wlm/pcocc_client.so",
    "/usr/share/doc/pcocc/admin.md", "/usr/share/doc/pcocc/guide/first-vm.md",
)  # fmt: skip
# as the programs of the runtime do: every module, even those that only some sites or commands need
IMPORT_ALL = """
import importlib, pathlib, re, sys
exec(re.search(r"sys.path.*", pathlib.Path("/usr/libexec/pcocc/node").read_text())[0])
root = pathlib.Path("/usr/lib/pcocc")
names = [".".join(path.relative_to(root).with_suffix("").parts) for path in sorted(root.rglob("*.py"))]
for name in names:
    importlib.import_module(name.removesuffix(".__init__"))
print(len(names))
"""


def test_things_are_where_the_distribution_wants_them(installed: Machine) -> None:
    listed = installed.run("cat /var/lib/dpkg/info/pcocc*.list").split("\n")
    assert [place for place in PLACES if place not in listed] == []
    first = {"/".join(path.split("/")[:3]) for path in listed if path.count("/") > 1}
    assert first <= {"/etc/pcocc", *(f"/usr/{name}" for name in ("bin", "lib", "libexec", "share"))}
    assert not [path for path in listed if "__pycache__" in path or path.startswith("/usr/share/pcocc/etc")]
    conffiles = installed.run("cat /var/lib/dpkg/info/pcocc*.conffiles").split()
    assert [path for path in conffiles if path.startswith("/")] == [f"/etc/pcocc/{name}.yaml" for name in SITE_FILES]


def test_the_account_and_the_directories_are_made(installed: Machine) -> None:
    assert installed.run("getent passwd pcocc-cache").split(":")[5:] == ["/nonexistent", "/usr/sbin/nologin\n"]
    listed = installed.run("stat -c '%n %U %a' /var/lib/pcocc /var/lib/pcocc/scratch")
    assert listed == "/var/lib/pcocc root 755\n/var/lib/pcocc/scratch root 755\n"


def test_all_of_the_runtime_finds_its_libraries(installed: Machine) -> None:
    assert int(installed.run(f"cat >/tmp/all <<'EOF'\n{IMPORT_ALL}\nEOF\npython3 -ISW error /tmp/all")) > 150


def test_the_samples_are_a_working_site(installed: Machine) -> None:
    said = installed.run("pcocc config check; pcocc template list --names")
    assert "/etc/pcocc: 2 templates, 1 resource set, 1 network, no error" in said and said.split()[-2:] == ["base", "debian"]


def test_srun_has_the_options_and_checks_them_in_python(installed: Machine) -> None:
    said = installed.run("srun --help")
    assert [option for option in OPTIONS if option not in said] == []
    done = installed.try_run("srun --pcocc-template=nothing true")
    assert done.returncode == 1 and "there is no template 'nothing'" in done.stdout, done.stdout


def test_the_filter_loads_in_lua(installed: Machine) -> None:
    """With slurmctld's Lua (5.1 or later), by the line with which a site's job_submit.lua begins."""
    installed.run("apt-get -qq install --yes lua5.1")
    assert installed.run("lua5.1 -e 'slurm = {}; dofile(\"/usr/share/pcocc/lua/job_submit.lua\")'") == ""
    installed.run("apt-get -qq purge --yes --auto-remove lua5.1")


def test_root_can_make_and_release_a_jobs_networks(installed: Machine) -> None:
    """The programs that root starts are there: nft, ip, bridge, dnsmasq. A removal leaves nothing of a running job."""
    request = "job 7\\nstep 0\\nuid 65534\\ngid 65534\\nstepd $$\\nindex 0\\nlayout localhost 0-0\\nsets default:1\\nend\\n"
    left = (
        "{ ip -brief link | grep -v -e ^lo -e ^eth0; ip netns; nft list tables; ls /run/pcocc 2>&1; pgrep -a dnsmasq; }"
        " || true"
    )
    node = "/usr/libexec/pcocc/node"
    said = installed.run(f'printf "{request}" | {node} setup; {node} start; nft list tables; {node} remove; echo ==; {left}')
    before, _mark, after = said.partition("==\n")
    assert "tap 0 tap0n0\n" in before and "table inet pcocc\n" in before and "table inet pcocc-7\n" in before
    assert "pcocc: job 7 loses its VMs\n" in before
    assert after == "ls: cannot access '/run/pcocc': No such file or directory\n"


def test_configuring_twice_changes_nothing(installed: Machine) -> None:
    look = (
        f"ls -lR --time-style=+ /etc/pcocc /etc/slurm /usr/lib/pcocc | grep -v '^total'; readlink {LINK}; getent passwd"
        " pcocc-cache"
    )
    dpkg = "DPKG_MAINTSCRIPT_PACKAGE=$package DPKG_MAINTSCRIPT_NAME=postinst"
    again = f"for package in pcocc pcocc-slurm-plugin; do {dpkg} /var/lib/dpkg/info/$package.postinst configure ''; done"
    before, _mark, after = installed.run(f"{look}; echo ==; {again} >/dev/null; {look}").partition("==\n")
    assert before == after and "/usr/share/pcocc/plugstack.conf\n" in before


def test_what_the_admin_took_away_stays_away(installed: Machine) -> None:
    installed.run(
        f"echo 'max-vms: 3' >/etc/pcocc/pcocc.yaml; rm {LINK}; apt-get -qq install --yes --reinstall"
        " /srv/files/pcocc*_*.deb"
    )
    assert installed.run(f"cat /etc/pcocc/pcocc.yaml; ls {LINK} 2>&1 || true") == (
        f"max-vms: 3\nls: cannot access '{LINK}': No such file or directory\n"
    )


def test_a_removal_leaves_jobs_without_us_working(installed: Machine) -> None:
    installed.run("echo 'max-vms: 3' >/etc/pcocc/pcocc.yaml")
    started = "systemd-tmpfiles --create pcocc.conf; touch /run/pcocc/cache.socket"
    assert installed.run(f"{started}; ls /run; apt-get -qq remove --yes pcocc >/dev/null; ls /run").split().count("pcocc") == 1
    said = installed.run("srun --help; find / -xdev -name '*pcocc*' -not -path '/proc/*'")
    assert "--pcocc-template" not in said and "/usr/lib/x86_64-linux-gnu/slurm-wlm/pcocc" not in said
    installed.run("apt-get -qq install --yes /srv/files/pcocc*_*.deb")
    assert "max-vms: 3" in installed.run("cat /etc/pcocc/pcocc.yaml")
    assert installed.run(f"readlink {LINK}; srun --help").count("--pcocc-template=") == 1


def test_a_purge_leaves_nothing_of_ours(installed: Machine) -> None:
    installed.run("pcocc config policy; touch /var/lib/pcocc/scratch/x; mkdir -p /var/cache/pcocc/layers")
    installed.run("apt-get -qq purge --yes 'pcocc*'")
    found = installed.run(
        "find /etc /usr /var /run /opt /srv -xdev -name '*pcocc*' -not -path '/srv/files/*' -not -path '/usr/src/*'"
    ).split()
    assert [path for path in found if path not in ("/usr/src/pcocc", "/var/lib/pcocc-build")] == []


def test_a_purge_leaves_what_the_admin_made(installed: Machine) -> None:
    installed.run("apt-get -qq install --yes /srv/files/pcocc*_*.deb; install -D /dev/null /var/lib/pcocc/images/site.qcow2")
    installed.run("mkdir /etc/pcocc/templates.d; touch /etc/pcocc/templates.d/ours.yaml; apt-get -qq purge --yes 'pcocc*'")
    kept = "find /etc/pcocc /var/lib/pcocc -type f"
    assert installed.run(kept).split() == ["/etc/pcocc/templates.d/ours.yaml", "/var/lib/pcocc/images/site.qcow2"]
