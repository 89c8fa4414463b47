"""New files start the pipeline: the landing sensor."""
