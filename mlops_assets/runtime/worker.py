"""The Celery app of the warm workers: they hold the code location before the first run comes."""

from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

import mlops_assets.definitions  # noqa: F401 -- forked workers start with it imported
from mlops_assets.runtime.instance import BROKER, QUEUE, broker_settings, result_backend
from mlops_assets.settings import load_settings

_settings = load_settings()

app = make_app(
    {
        "broker": BROKER,
        "backend": result_backend(_settings),
        "task_default_queue": QUEUE,
        "config_source": broker_settings(_settings),
    }
)
execute_job = create_execute_job_task(app)
resume_job = create_resume_job_task(app)
