"""The govc service as a store; httpx lives in this package and nowhere else."""

from caiafs.backends.govc.backend import GovcBackend
from caiafs.backends.govc.settings import GovcSettings

__all__ = ["GovcBackend", "GovcSettings"]
