"""Whether the user as whom commands run can log in: what we say of a cloud-config, beside what cloud-init's own module
makes of it.
"""

import random
from typing import Any

import pytest
import yaml

from pcocc_runtime.guest.cloud_users import Identities
from pcocc_runtime.guest.user_data_judging import judge_user_data
from tests.unit.guest.asking import ask_cloud_init, lets_in

pytestmark = pytest.mark.thorough

NAMES = ["alice", "root", "bob", "default", "debian", "7", 7, None, "carol"]
SETTINGS: dict[str, list[Any]] = {
    "ssh_authorized_keys": [["x"]], "ssh-authorized-keys": [["x"]], "ssh_import_id": [["gh:x"]],
    "ssh_redirect_user": [True, False, "default", "x"], "ssh-redirect-user": [True], "no_create_home": [True],
    "no-create-home": [True], "system": [True, False], "groups": [["a"], "a,b", 7, [7], {"a": None}], "uid": [7],
    "snapuser": ["x@y"], "sudo": ["a", ["a"]], "lock_passwd": [False], "shell": ["/bin/x"],
    "merge_how": ["dict(replace)+list()+str()", "list(append)+dict(no_replace)"], "passwd": ["x"],
}  # fmt: skip
PASSWORDS: list[Any] = [
    {"list": "alice:x\nbob:y"}, {"list": ["debian:R"]}, {"list": ["root:x", "alice:$6$a$b"]}, {"list": "alice"}, {},
    {"users": [{"name": "alice"}, {"name": "root", "type": "text", "password": "x"}]},
    {"users": [{"name": "debian"}], "expire": "no"}, {"expire": 1, "list": "default:x"}, {"expire": False},
]  # fmt: skip
GROUPS = ["a,b", ["a"], {"a": ["bob"]}, 7, [7], {"a": None}, [{"a": "bob"}], {"a": [7]}, None, {7: ["a"]}]


def make_user(dice: random.Random) -> Any:
    if dice.random() < 0.3:
        return dice.choice(NAMES) if dice.random() < 0.9 else [dice.choice(NAMES)]
    user = {"name": dice.choice(NAMES)} if dice.random() < 0.9 else {}
    return user | {key: dice.choice(SETTINGS[key]) for key in dice.sample(sorted(SETTINGS), dice.choice([0, 0, 1, 1, 1, 2, 3]))}


def make_tree(dice: random.Random) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if dice.random() < 0.85:
        tree["users"] = [make_user(dice) for _ in range(dice.choice([0, 1, 1, 2, 3]))]
    if dice.random() < 0.1:
        tree["users"] = dice.choice(["bob", None, {"alice": True}, 7])
    if dice.random() < 0.4:
        tree["user"] = make_user(dice)
    if dice.random() < 0.2:
        tree["groups"] = dice.choice(GROUPS)
    if dice.random() < 0.2:
        tree["password"] = "x"
    if dice.random() < 0.2:
        tree["chpasswd"] = dice.choice(PASSWORDS)
    return tree


@pytest.mark.parametrize("command_user", [None, "debian", "root"])
def test_whoever_is_shut_out_is_told_and_nobody_else(command_user: str | None) -> None:
    """Releases differ in what the old key `user` does, so that what shuts somebody out in any of them is refused."""
    dice, names = random.Random(str(command_user)), Identities("alice", command_user)
    texts = [f"#cloud-config\n{yaml.safe_dump(make_tree(dice), sort_keys=False)}" for _ in range(150)]
    shut_out = 0
    for text, guest in zip(texts, ask_cloud_init(texts, command_user), strict=True):
        told, lost = judge_user_data(text, names), not lets_in(guest, names.target)
        refuses = any(one.refuses for one in told)
        # what is wrong with the image's own user is told, and no more: pcocc does not know what he is called
        likely = "debian" in (command_user or text) and bool(told)
        assert not lost or refuses or likely, (text, guest)
        assert lost or not refuses or "user:" in text, (text, guest, told)
        shut_out += lost
    assert 20 < shut_out < 130
