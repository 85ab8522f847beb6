"""Real govc servers for the store process."""

from tests.support.govc_peek import peek, server

__all__ = ["peek", "server"]
