"""What a CAIA file system is, in our own terms: inodes, handles, contents; no kernel here."""
