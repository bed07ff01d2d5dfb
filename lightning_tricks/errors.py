"""The one exception that means "the input was wrong", as against a defect of the program."""


class InputError(ValueError):
    """Input that breaks a rule: its one-line message states the rule, the value and the remedy.

    A study script prints the message and ends with exit code 2; a library user catches it as the
    `ValueError` it is.
    """
