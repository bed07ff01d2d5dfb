"""Everything that talks to MLflow; no other folder imports it."""
