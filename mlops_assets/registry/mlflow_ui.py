"""MLflow's page as one process, with the options of `mlflow server`.

MLflow's own command stays in memory for as long as the server it starts runs, which is as much
again for nothing.
"""

from __future__ import annotations

import sys

from mlops_assets.registry.mlflow_compat import serve_as_one_process

if __name__ == "__main__":
    serve_as_one_process(["--workers", "1", *sys.argv[1:]])
