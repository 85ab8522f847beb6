"""The three dialects: each turns what the backend wants into requests, without sending any."""
