"""The host's accounts."""

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.system import accounts


def test_a_node_that_does_not_know_the_user_is_named() -> None:
    with pytest.raises(NodeError, match=r"^this node knows no user with uid 4000000000$") as caught:
        accounts.read_account(4000000000)
    assert caught.value.hint and "getent passwd 4000000000" in caught.value.hint
    assert accounts.read_account(0).pw_name == "root"
