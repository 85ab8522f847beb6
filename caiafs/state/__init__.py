"""The state DB, the op log and the spool: the local truth that the mount serves."""
