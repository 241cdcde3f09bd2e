"""The signals by which people, terminals and service managers ask a program to stop (signal(7))."""

from __future__ import annotations

import signal

__all__ = ["ASKING_TO_STOP"]

ASKING_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
