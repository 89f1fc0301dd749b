"""What libexec's launch, keeper and attach are, for a source tree that is not installed."""

import os
import sys
from pathlib import PurePath

HERE = PurePath(__file__)
sys.path[:0] = [str(HERE.parents[2]), "/run/pcocc/packages"]

from pcocc_runtime.keeper import main as keeper  # noqa: E402
from pcocc_runtime.vm import launcher  # noqa: E402

if sys.argv[1] == "launch":
    launcher.KEEPER = ("/usr/bin/python3", "-IS", str(HERE), "keeper")
    sys.exit(launcher.main())
if sys.argv[1] == "cache":
    import functools

    from pcocc_runtime.cache import service

    service.read_image_cache = functools.partial(service.read_image_cache, "/run/pcocc/etc")  # type: ignore[attr-defined]
    sys.exit(service.main())
mode = sys.argv.pop(1)
if mode == "attach":
    from pcocc_runtime.steps import main as attach

    if "DIE_AT" in os.environ:
        from tests.qemu import dying

        dying.die_at(int(os.environ["DIE_AT"]))
    sys.exit(attach.main())
sys.exit(keeper.main())
