"""Real govc servers for the store process."""

from tests.support.govc_server import govc_servers

__all__ = ["govc_servers"]
