"""The two kinds of store, and the contract that both keep."""
