"""What MLflow shows; the only folder that imports it."""
