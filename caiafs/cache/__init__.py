"""Clean copies of contents, bounded; losing them loses nothing."""
