"""Networks, audio front ends and defect simulators: torch and numpy only, no Spark and no MLflow."""
