"""An address to listen at; a word where it is open to everybody."""

import ipaddress
import socket
import warnings

from fewshot_ad.api import FewShotError

BACKLOG = 1024  # connections that come all at once are kept, not refused


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free.

    Raises:
        FewShotError: the address is taken, or none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise _unusable(host, port, error) from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a restart, at once
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise _unusable(host, port, error) from error
    return opened


def address_of(listening: socket.socket) -> str:
    """Where people find it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def warn_of_an_open_door(host: str, token: str | None) -> None:
    """Say so when everybody in the network may come in."""
    if token is None and not is_loopback(host):
        warnings.warn(
            f"{host} can be reached from other machines, and no token is asked for: everybody "
            "there may send photos; set FEWSHOT_AD_TOKEN, or keep to --host 127.0.0.1",
            stacklevel=2,
        )


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unusable(host: str, port: int, error: Exception) -> FewShotError:
    reason = getattr(error, "strerror", None) or str(error)
    return FewShotError(
        f"cannot listen at {host}:{port}: {reason}; choose another --host or --port"
    )
