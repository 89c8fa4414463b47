"""`mlops-assets up`: Dagster's programs, MLflow's page and workers, as one."""
