"""Check whether a Ray cluster answers at an address."""

import os
import re
import socket
import sys

from lightning_tricks.errors import InputError, one_line

ANSWER_SECONDS = 5.0
"""Timeout in seconds for the cluster's answer."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = bytes([4])
"""Type of an HTTP/2 server's first frame."""


def running_address() -> str | None:
    """Return the address of Ray if this process already uses it, to share it; else None."""
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().gcs_address if ray and ray.is_initialized() else None


def refusal(address: str | None, why: str) -> InputError:
    """Return the error for a Ray that does not answer or start; says what to do."""
    line = one_line(RuntimeError(why))
    if address is None:
        return InputError(f"Ray cannot be started: {line}; use --workers inline")
    return InputError(
        f"no Ray cluster answers: {line} (got --ray-address {address}); start one with "
        "`ray start --head`"
    )


def check_cluster(address: str) -> None:
    """Check that a Ray cluster answers.

    Raises:
        InputError: if it does not answer within a few seconds.
    """
    if address != "auto":
        _probe(address)


def _probe(address: str) -> None:
    """Check an address ourselves: Ray would wait for most of a minute and print its own messages.

    A gRPC server answers the HTTP/2 preface with a settings frame. With TLS it does so only for clients
    with a certificate, so an open connection is enough there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port):
        raise InputError(f"a Ray address must be HOST:PORT or auto (got --ray-address {address})")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.sendall(_PREFACE)
            if os.environ.get("RAY_USE_TLS", "0") == "0" and connection.recv(9)[3:4] != _SETTINGS:
                raise OSError("the server there is not Ray")
    except (OSError, OverflowError) as error:
        raise refusal(address, str(error)) from None
