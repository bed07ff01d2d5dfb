"""The error for trainings that cannot be trained as one."""


class Unfusible(Exception):
    """These trainings cannot be trained as one; the message says why, in one line."""
