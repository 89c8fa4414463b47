"""How a test process begins: imported before all else, for what follows to be imported cheaply."""

import atexit
import gc
import os

# Not the process that hands the tests out: it collects none, and would go on without collections.
if "PYTEST_XDIST_WORKER" in os.environ:
    # Until everything is collected: imports leave no garbage, and are looked through for it.
    gc.disable()

    # The first to be registered is the last to be called. All that was imported would be looked
    # through for garbage after it, by a process whose results are told.
    atexit.register(os._exit, 0)

    # It looks for its types in every module that is there, so the sooner the better.
    import skops.io  # noqa: F401
