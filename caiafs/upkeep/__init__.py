"""What is done to a repository while it is not mounted, or beside its mount: check, repair, back up, restore, migrate."""
