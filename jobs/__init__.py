"""The driver's side: command lines, the Spark session, MLflow, tables."""
