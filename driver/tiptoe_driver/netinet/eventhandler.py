"""Events of the kernel that others subscribe to (FreeBSD's sys/eventhandler.h)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Handler = Callable[[Any, Any], None]
"""Called with the subscriber's argument, and with what has happened to whom."""
Subscription = tuple[Handler, Any]
"""What deregister wants back."""


class EventHandlerList:
    """One EVENTHANDLER of the kernel: functions that are all called when it is invoked."""

    def __init__(self) -> None:
        self._entries: list[Subscription] = []

    def register(self, function: Handler, arg: Any) -> Subscription:
        """Subscribe ``function(arg, what)``; returns the tag for deregister."""
        entry = (function, arg)
        self._entries.append(entry)
        return entry

    def deregister(self, tag: Subscription) -> None:
        """Unsubscribe; an unknown tag is ignored."""
        if tag in self._entries:
            self._entries.remove(tag)

    def invoke(self, what: Any) -> None:
        """Call every subscriber with ``what``."""
        for function, arg in list(self._entries):
            function(arg, what)
