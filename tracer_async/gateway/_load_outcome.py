"""What an error says about a load that should be switched: it was certainly not switched, or that is unknown."""

from __future__ import annotations

from tracer_async import LinkTimeoutError, LoadRefusedError, LoadUnknownError
from tracer_async.gateway._load_switch import LoadDeadlineError
from tracer_async.gateway.listening import ListensOnlyError

__all__ = ["certainly_not_switched", "failure_text"]


def certainly_not_switched(error: BaseException) -> bool:
    """Return whether *error*, raised by `Controllers.set_load`, proves that the load was not switched.

    After any other error the command may have been executed, although no answer confirms it.
    """
    if isinstance(error, LoadUnknownError | LoadDeadlineError):
        return not error.sent
    # LinkTimeoutError: there was no connection. KeyError: there is no such controller. Other errors of a connection
    # may come after the command.
    return isinstance(error, LoadRefusedError | LinkTimeoutError | ListensOnlyError | KeyError)


def failure_text(name: str, on: bool, error: BaseException) -> str:
    """Return a line for the log about a switch of the controller *name* that failed."""
    what = (
        "the load was not switched" if certainly_not_switched(error) else "it is unknown whether the load was switched"
    )
    reason = "no such controller" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return f"{name}: {what} {'on' if on else 'off'}: {reason}"
