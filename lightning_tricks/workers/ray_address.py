"""Whether a Ray cluster answers at an address."""

import os
import re
import socket
import sys

from lightning_tricks.errors import InputError, one_line

ANSWER_SECONDS = 5.0
"""A cluster that does not answer by then is taken for none."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = bytes([4])
"""The type of the frame that an HTTP/2 server begins with."""


def running_address() -> str | None:
    """Return the address of Ray if it runs in this process already, and is to be shared."""
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().gcs_address if ray and ray.is_initialized() else None


def refusal(address: str | None, why: str) -> InputError:
    """Say that Ray does not answer, or cannot be started, and what to do."""
    line = one_line(RuntimeError(why))
    if address is None:
        return InputError(f"Ray cannot be started: {line}; use --workers inline")
    return InputError(
        f"no Ray cluster answers: {line} (got --ray-address {address}); start one with "
        "`ray start --head`"
    )


def check_cluster(address: str) -> None:
    """Look whether a Ray cluster answers.

    Raises:
        InputError: if none does, at once or after a few seconds.
    """
    if address != "auto":
        _probe(address)


def _probe(address: str) -> None:
    """Refuse an address at which Ray would wait for most of a minute, writing of it in its own way.

    A gRPC server answers the preface of HTTP/2 with the frame of its settings. With TLS it does not
    without a certificate, so there it is enough that a connection is taken.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port):
        raise InputError(f"a Ray address must be HOST:PORT or auto (got --ray-address {address})")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.sendall(_PREFACE)
            if os.environ.get("RAY_USE_TLS", "0") == "0" and connection.recv(9)[3:4] != _SETTINGS:
                raise OSError("what answers there is no Ray")
    except (OSError, OverflowError) as error:
        raise refusal(address, str(error)) from None
