"""Pure functions of the machine learning: frames in, frames and frozen records out.

Nothing here knows Dagster, MLflow, files, the environment or the clock. scikit-learn is imported
inside functions, except in `estimators`, so that a code location loads without it.
"""
