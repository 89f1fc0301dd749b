"""Images at submission: a name becomes the path of a disk, which stays what it was whatever happens to the name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime.documents import wire_steps
from pcocc_runtime.documents.cluster import Group, decode_cluster
from pcocc_runtime.documents.typed_options import TypedOptions, encode_typed_options
from pcocc_runtime.images import images, qemu_img
from pcocc_runtime.images.references import Repo
from pcocc_runtime.submit import main as client
from tests.images.disks import Ran, content, make_disk, raw_sum

Pcocc = Callable[..., Ran]
Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(pcocc: Pcocc, tmp_path: Path) -> Ask:
    """Return a function that submits VMs of one template, which has this image, to a site with images of seed 0, 1 and 2."""
    for name, text in (("networks", "lan: {type: ethernet}"), ("resources", "default: {networks: [lan], default: true}")):
        (tmp_path / f"etc/{name}.yaml").write_text(text)
    for seed in range(3):
        make_disk(tmp_path / f"{seed}.qcow2", seed=seed)
    pcocc("image", "import", "0.qcow2", "site:debian")
    pcocc("image", "import", "1.qcow2", "user:debian")
    pcocc("image", "import", "--update", "2.qcow2", "user:debian")

    def submit(image: str, *options: str) -> tuple[int, str]:
        (tmp_path / "etc/templates.yaml").write_text(f"vm: {{image: '{image}'}}")
        return client.check_request(encode_typed_options(TypedOptions("vm", images=list(options))))

    return submit


def group_of(answer: tuple[int, str]) -> Group:
    assert answer[0] == wire_steps.CHECK_PASSED, answer
    return decode_cluster(dict(line.split(" ", 1) for line in answer[1].splitlines())["cluster"]).groups[0]


def disk(answer: tuple[int, str]) -> Path:
    group = group_of(answer)
    assert group.image and group.image.startswith("/")
    return Path(group.image)


def test_what_a_vm_runs_from_is_known_by_its_full_name(ask: Ask, tmp_path: Path) -> None:
    assert [group_of(ask(image)).origin for image in ("debian", "debian@0", "site:debian")] == [
        "user:debian@1", "user:debian@0", "site:debian@0",
    ]
    assert group_of(ask(f"{tmp_path}/0.qcow2")).origin is None


@pytest.mark.parametrize(
    ("image", "seed"),
    [("debian", 2), ("user:debian", 2), ("debian@0", 1), ("user:debian@1", 2), ("site:debian", 0), ("site:debian@0", 0)],
)
def test_names_in_templates_and_options_are_resolved(ask: Ask, tmp_path: Path, image: str, seed: int) -> None:
    assert content(disk(ask(image))) == raw_sum(seed)
    assert content(disk(ask("/nowhere", image))) == raw_sum(seed)
    assert content(disk(ask("/nowhere", f"vm={image}"))) == raw_sum(seed)


def test_what_is_frozen_stays_and_runs(ask: Ask, pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    path = disk(ask("debian"))
    pcocc("image", "resize", "debian", "2M")
    pcocc("image", "import", "--update", "0.qcow2", "debian")
    assert qemu_img.create_overlay(str(path), tmp_path / "overlay.qcow2") and content(tmp_path / "overlay.qcow2") == raw_sum(2)
    top = disk(ask("debian@2"))
    assert qemu_img.create_overlay(str(top), tmp_path / "over2.qcow2") and content(tmp_path / "over2.qcow2") == raw_sum(
        2, size=2 << 20
    )


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nope", "there is no image 'nope' in any repository (user, site)"),
        ("site:nope", "there is no image 'nope' in repository 'site'"),
        ("far:debian", "there is no image repository 'far'"),
        ("debian@7", "image 'debian' has no revision 7"),
        ("deb ian", "'deb ian' is not the name of an image"),
        ("debian@x", "'x' in 'debian@x' is not the number of a revision"),
        ("x" * 300, "is not the name of an image"),
    ],
)
def test_what_cannot_be_had_is_refused(ask: Ask, image: str, said: str) -> None:
    for answer in (ask(image), ask("/nowhere", image)):
        assert (
            answer[0] == wire_steps.CHECK_REFUSED
            and said in answer[1]
            and "hint: " in answer[1]
            and answer[1].count("\n") == 1
        )


def test_a_damaged_image_is_refused(ask: Ask, pcocc: Pcocc, repo: Repo) -> None:
    disk(ask("debian")).unlink()
    code, text = ask("debian")
    assert code == wire_steps.CHECK_REFUSED and "layer 0 of image user:debian@1" in text and "No such file" in text


def test_paths_need_no_repository(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "etc/repos.yaml").write_text("repos: 5")
    assert disk(ask(str(tmp_path / "0.qcow2"))) == disk(ask("/nowhere", "./0.qcow2")) == tmp_path / "0.qcow2"
    assert "repos.yaml:1: repos: expected a list" in ask("debian")[1]


def test_all_names_are_listed_with_the_repository_they_are_taken_from(ask: Ask, pcocc: Pcocc, repo: Repo, other: Repo) -> None:
    pcocc("image", "copy", "debian", "site:alma")
    assert images.list_images([repo, other]) == {"alma": other, "debian": repo}
    assert images.list_images([other, repo]) == {"alma": other, "debian": other}


def test_an_image_is_a_template_of_its_own_unless_one_has_its_name(ask: Ask, pcocc: Pcocc, tmp_path: Path) -> None:
    def submit(template: str) -> tuple[int, str]:
        return client.check_request(encode_typed_options(TypedOptions(template)))

    ask("debian")
    assert content(disk(submit("debian:2"))) == raw_sum(2)
    rows = {line.split()[0]: line.split()[1] for line in pcocc("template", "list").out.splitlines()[1:]}
    assert rows == {"vm": "site", "debian": "image"}
    assert pcocc("template", "show", "debian").out.startswith("template debian, made of image user:debian\n")
    (tmp_path / "etc/templates.yaml").write_text("debian: {image: 'site:debian'}")
    assert content(disk(submit("debian"))) == raw_sum(0)
    (tmp_path / "etc/resources.yaml").write_text("default: {networks: [lan]}")
    (tmp_path / "etc/templates.yaml").write_text("")
    assert submit("debian")[0] == wire_steps.CHECK_REFUSED
