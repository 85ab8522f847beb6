"""What a CAIA file system is, in our own terms: inodes, handles, contents. No kernel, no network."""
