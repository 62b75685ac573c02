"""What can go wrong between a front door and its control plane, in one line each."""

from __future__ import annotations


class CannotConnect(Exception):
    """Why the connector cannot work, fit for the user's terminal and for Docker's error message."""


class Lost(Exception):
    """The connection broke, or the front end had nobody to pass the request on to. Asking again may help."""


def reason(error: BaseException) -> str:
    """The innermost cause, in the words of the system."""
    innermost: BaseException = error
    while (cause := innermost.__cause__ or innermost.__context__) is not None:
        innermost = cause
    if isinstance(innermost, OSError) and innermost.strerror:
        return innermost.strerror
    return str(innermost) or str(error) or type(error).__name__
