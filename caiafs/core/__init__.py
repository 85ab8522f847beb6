"""Types, errors, configuration, metrics: what everything else stands on."""
