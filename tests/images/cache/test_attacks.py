"""A user who tries to hold up others at the image cache: with a copy that never ends, with wrong content, with many
connections.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.cache import layer_store, protocol, service
from pcocc_runtime.errors import NodeError
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.system import copy
from tests.images import children
from tests.images.cachenode import ALICE, BOB, MEBIBYTE, Node, add, layers
from tests.waiting import wait_closely

real = copy.read_sparse


@pytest.fixture
def alices(root: Path) -> Path:
    """A file of Alice's that never yields a byte, as one in a FUSE file system of hers may."""
    path = root / "alices"
    path.write_bytes(b"anything")
    os.chown(path, ALICE, ALICE)
    path.chmod(0o644)
    return path


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(fd: int, size: int) -> Iterator[bytes]:
        if os.fstat(fd).st_uid == ALICE:
            while True:
                signal.pause()
        yield from real(fd, size)

    monkeypatch.setattr(copy, "read_sparse", read)


def ask(layer: str, source: Path) -> str:
    """Ask the service for a layer; return its last answer but what it says on the way."""
    sock = protocol.connect()
    assert sock is not None
    with sock, source.open("rb") as file:
        try:
            protocol.send_request(sock, layer, file.fileno())
            return str([one.state for one in protocol.receive_states(sock)][-1])
        except NodeError:
            return "gone"


def attack(node: Node, layer: str, source: Path) -> int:
    """Have Alice ask for a layer, with a source of hers. Return the process, whose exit status is the answer."""
    states = ["done", "declined", "damaged", "failed", "gone"]

    def asks() -> int:
        os.setresuid(ALICE, ALICE, ALICE)
        return states.index(ask(layer, source))

    child = children.start(asks, node.root / "alice")
    wait_closely(lambda: any(node.cache.glob(f".tmp/{layer}*")))
    return child


def start_base(node: Node, site: Repo) -> tuple[Found, str]:
    base = add(site, "base")
    node.start_service()
    return base, base.revision.layers[-1]


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("shared", [False, True], ids=["by user", "as it was"])
def test_a_copy_that_never_ends_holds_up_nobody_else(
    node: Node, site: Repo, alices: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    if shared:
        monkeypatch.setattr(layer_store.Store, "_whose", "")
        monkeypatch.setattr(layer_store, "STALL_SECONDS", 0.5)
    base, layer = start_base(node, site)
    attacker = attack(node, layer, alices)
    try:
        path = node.launch(base.path, uid=BOB)
        assert (node.cached() == layers(base) and node.said() == "") is not shared
        assert (path.resolve() == base.path) is shared
    finally:
        os.kill(attacker, signal.SIGKILL)
        children.wait(attacker)


@pytest.mark.usefixtures("reading")
def test_a_copy_of_which_nothing_comes_is_given_up(node: Node, site: Repo, alices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_SILENT_SECONDS", 1)
    _base, layer = start_base(node, site)
    assert children.wait(attack(node, layer, alices)) == 3
    assert list(node.cache.glob(".tmp/*")) == []


def test_a_copy_that_is_too_slow_is_given_up(root: Path, site: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes now and then do not count as progress; a copy that is fast enough may take as long as it needs."""
    base = add(site, "base", size=8 * MEBIBYTE, used=8 * MEBIBYTE)
    layer, now = base.revision.layers[-1], [0.0]
    for rate, slow in ((1 << 10, True), (1 << 21, False)):
        store = layer_store.Store(str(root / f"store{rate}"), 1 << 30)
        Path(store.path).mkdir()

        def watch(_state: str, _size: int, rate: int = rate) -> None:
            now[0] += (1 << 20) / rate

        monkeypatch.setattr(layer_store.time, "monotonic", lambda: now[0])
        with base.path.open("rb") as source:
            if slow:
                with pytest.raises(layer_store.NoRoom, match="too slow"):
                    layer_store.fill(store, layer, source.fileno(), watch)
                assert list(Path(store.path).glob(".tmp/*")) == []
            else:
                layer_store.fill(store, layer, source.fileno(), watch)
                assert layer_store.is_there(store, layer, base.path.stat().st_size)


def test_one_user_does_not_have_all_connections(node: Node, site: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_TURNS", 2)
    base, layer = start_base(node, site)

    def takes_all() -> int:
        os.setresuid(ALICE, ALICE, ALICE)
        held = [protocol.connect() for _number in range(2)]
        print("ready", flush=True)
        signal.pause()
        return len(held)

    holder = children.start(takes_all, node.root / "alice")
    try:
        wait_closely(lambda: (node.root / "alice").exists() and "ready" in (node.root / "alice").read_text())
        wait_closely(lambda: len(list(node.cache.glob(f".turns/{ALICE}.*"))) == 2)

        def asks_too() -> int:
            os.setresuid(ALICE, ALICE, ALICE)
            return ["done", "declined", "gone"].index(ask(layer, base.path))

        assert children.wait(children.start(asks_too, node.root / "third")) in (1, 2) and node.cached() == set()
        node.launch(base.path, uid=BOB)
        assert node.cached() == layers(base)
    finally:
        os.kill(holder, signal.SIGKILL)
        children.wait(holder)
