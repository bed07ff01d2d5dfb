"""How torch and Lightning are imported, which takes seconds and sets what cannot be changed later."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import the libraries quickly, and so that they leave the machine's cores to others."""
    with _waiting_passively(), _no_garbage_collection():
        yield


@contextmanager
def _waiting_passively() -> Iterator[None]:
    """Let idle threads of imported libraries sleep: spinning threads slow down a busy machine."""
    variable = "OMP_WAIT_POLICY"  # which is read once, when torch is loaded
    own = variable in os.environ
    os.environ.setdefault(variable, "PASSIVE")
    yield
    if not own:
        del os.environ[variable]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect no garbage while libraries are imported, and never search them for it later.

    They make a million objects that stay. Looking through them takes a third of the time until a study
    starts.
    """
    if "lightning_tricks.run.program" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
