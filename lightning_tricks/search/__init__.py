"""Everything that talks to Optuna: studies, samplers, pruners, storages."""
