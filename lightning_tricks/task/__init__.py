"""The task of a study, and the checks before its first trial."""
