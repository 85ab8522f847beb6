"""scripts/bench: what caiafs costs, beside bindfs, a pyfuse3 passthrough and the plain directory."""
