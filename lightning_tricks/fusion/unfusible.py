"""What cannot be trained as one."""


class Unfusible(Exception):
    """What is to be trained as one cannot be; says why, in a line."""
