"""Who may have a resource set, and which networks go together."""

import pytest

from pcocc_runtime.documents.boot_step import Charge, Person
from pcocc_runtime.errors import RequestError
from pcocc_runtime.networks import settings
from pcocc_runtime.networks.settings import parse_networks
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.site import admission
from pcocc_runtime.site.resource_sets import Access, ResourceSet
from pcocc_runtime.site.rules import VmLimit
from pcocc_runtime.system import accounts

ALICE = Person(1000, "alice", frozenset({"users", "physics"}))
NAMELESS = Person(1000, None, frozenset({"physics"}))


def restricted(**lists: tuple[str, ...]) -> list[ResourceSet]:
    return [ResourceSet("free", ()), ResourceSet("gpu", (), access=Access(**lists))]


@pytest.mark.parametrize(
    "sets",
    [
        restricted(),
        restricted(users=("bob", "alice")),
        restricted(groups=("chemistry", "physics")),
        restricted(users=("alice",), groups=("physics",)),
    ],
)
def test_who_is_named_is_admitted(sets: list[ResourceSet]) -> None:
    admission.ensure_admitted(sets, lambda: ALICE)


@pytest.mark.parametrize(
    ("person", "sets", "said"),
    [
        (ALICE, restricted(users=("bob", "carol")), "resource set 'gpu' is not for user 'alice'; it is for: bob, carol"),
        (
            ALICE,
            restricted(groups=("chemistry",)),
            "resource set 'gpu' is not for the groups of user 'alice'; it is for: chemistry",
        ),
        (ALICE, restricted(users=("alice",), groups=("chemistry",)), "resource set 'gpu' is not for the groups of user 'alice'"),
        (ALICE, restricted(users=("bob",), groups=("physics",)), "resource set 'gpu' is not for user 'alice'"),
        (ALICE, restricted(users=("Alice", "alic", "alicea")), "resource set 'gpu' is not for user 'alice'"),
        (
            NAMELESS,
            restricted(users=("alice",)),
            "resource set 'gpu' is not for uid 1000, which has no name here; it is for: alice",
        ),
        (Person(7, None), restricted(groups=("physics",)), "is not for the groups of uid 7, which has no name here"),
    ],
)
def test_who_is_not_in_every_list_is_refused(person: Person, sets: list[ResourceSet], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        admission.ensure_admitted(sets, lambda: person)
    assert said in str(caught.value) and caught.value.hint


HERE = Charge("physics", "vm", "normal")


@pytest.mark.parametrize(
    "sets",
    [
        restricted(), restricted(users=("bob",)),
        restricted(accounts=("chemistry", "physics"), partitions=("vm",), qos=("normal", "high")),
    ],
)
def test_a_job_of_the_right_place_is_admitted(sets: list[ResourceSet]) -> None:
    admission.ensure_charged(sets, HERE)


@pytest.mark.parametrize(
    ("place", "sets", "said"),
    [
        (
            HERE, restricted(accounts=("chemistry",)),
            "resource set 'gpu' is not for account 'physics'; it is for: chemistry",
        ),
        (
            HERE, restricted(accounts=("physics",), partitions=("gpu",)),
            "resource set 'gpu' is not for partition 'vm'; it is for: gpu",
        ),
        (HERE, restricted(qos=("high",)), "resource set 'gpu' is not for QOS 'normal'; it is for: high"),
        (
            Charge("", "vm", ""), restricted(accounts=("physics",)),
            "resource set 'gpu' is not for jobs without account; it is for: physics",
        ),
    ],
)
def test_a_job_of_another_place_is_refused(place: Charge, sets: list[ResourceSet], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        admission.ensure_charged(sets, place)
    assert str(caught.value).startswith(said) and caught.value.hint


def test_a_place_is_asked_for_only_where_it_matters() -> None:
    limits = ({}, {"users": ("a",)}, {"groups": ("a",)}, {"accounts": ("a",)}, {"partitions": ("a",)}, {"qos": ("a",)})
    assert [admission.needs_charge(restricted(**one)) for one in limits] == [False, False, False, True, True, True]


def test_nobody_is_looked_up_for_sets_without_users_and_groups() -> None:
    def explode() -> Person:
        raise AssertionError("the databases were asked")

    admission.ensure_admitted(restricted(accounts=("physics",), partitions=("vm",), qos=("normal",)), explode)


def test_the_person_is_who_the_host_says() -> None:
    root = accounts.read_person(0, 0)
    assert (root.uid, root.name) == (0, "root") and "root" in root.groups
    assert {"nogroup", "root"} <= accounts.read_person(0, 65534).groups
    assert accounts.read_person(2**32 - 7, 0) == Person(2**32 - 7, None)
    assert accounts.user_exists("root") and not accounts.user_exists("no such user")
    assert accounts.group_exists("root") and not accounts.group_exists("no such group")


NETWORKS = """
lan: {type: ethernet}
pv: {type: ethernet, settings: {network-layer: L2}}
same: {type: ethernet}
apart: {type: ethernet, settings: {int-network: 10.100.0.0/16}}
"""
EVERY = parse_networks(parse_yaml(NETWORKS, "networks.yaml"), [])


def test_sets_of_one_cluster_have_addresses_apart() -> None:
    admission.ensure_compatible([ResourceSet("a", ("lan", "pv")), ResourceSet("b", ("pv", "apart", "lan"))], EVERY)
    with pytest.raises(RequestError, match=r"network 'same' \(10.200.0.0/16\) overlaps 'lan' \(10.200.0.0/16\)"):
        admission.ensure_compatible([ResourceSet("a", ("lan", "apart")), ResourceSet("b", ("same",))], EVERY)


def test_a_job_has_no_more_networks_than_there_are_numbers_for() -> None:
    names = [f"n{index}" for index in range(65)]
    many = {name: settings.EthernetNetwork(name, "L2") for name in names}
    admission.ensure_compatible([ResourceSet("a", tuple(names[:40])), ResourceSet("b", tuple(names[30:64]))], many)
    with pytest.raises(RequestError, match="these VMs have 65 networks together, but a job can have 64 at most"):
        admission.ensure_compatible([ResourceSet("a", tuple(names[:40])), ResourceSet("b", tuple(names[30:]))], many)


STUDENTS = VmLimit(4, Access(accounts=("students",)))
DEBUG = VmLimit(8, Access(partitions=("debug",), users=("alice",)))
PLACE = Charge("students", "main", "normal")


@pytest.mark.parametrize(
    ("limits", "vms", "place", "most"),
    [
        ([VmLimit(3)], 4, None, 3),
        ([VmLimit(4)], 4, None, None),
        ([STUDENTS, DEBUG], 5, PLACE, 4),
        ([STUDENTS, DEBUG], 4, PLACE, None),
        ([STUDENTS, DEBUG], 9, Charge("physics", "debug", "normal"), 8),
        ([VmLimit(8, Access(partitions=("debug",), users=("bob",)))], 9, Charge("physics", "debug", "normal"), None),
        ([STUDENTS, DEBUG], 9, Charge("physics", "main", "normal"), None),
        ([VmLimit(1, Access(qos=("low",)))], 2, Charge("", "", "low"), 1),
    ],
)
def test_how_many_vms_a_job_may_have(limits: list[VmLimit], vms: int, place: Charge | None, most: int | None) -> None:
    if most is None:
        admission.ensure_few(limits, vms, place, lambda: ALICE)
        return
    with pytest.raises(RequestError, match=f"{vms} VMs are asked for, but this job can have {most} at most"):
        admission.ensure_few(limits, vms, place, lambda: ALICE)


def test_who_is_charged_is_asked_for_only_when_a_limit_depends_on_it() -> None:
    assert not admission.needs_charge(admission.find_tight([STUDENTS, VmLimit(2)], 4))
    assert admission.needs_charge(admission.find_tight([STUDENTS, VmLimit(2)], 5))
    assert not admission.needs_charge(admission.find_tight([VmLimit(2, Access(users=("alice",)))], 5))
