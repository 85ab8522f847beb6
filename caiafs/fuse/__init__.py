"""The kernel's side: pyfuse3 is known only here."""
