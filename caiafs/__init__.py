"""caiafs: CAIA documents as a folder, kept in govc and in git."""

__version__ = "0.1.0"
