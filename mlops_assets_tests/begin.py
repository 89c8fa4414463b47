"""How a test process begins: imported before all else, for what follows to be imported cheaply."""

import gc

# Until everything is collected: imports leave no garbage, and are looked through for it.
gc.disable()

# It looks for its types in every module that is there, so the sooner the better.
import skops.io  # noqa: E402, F401
