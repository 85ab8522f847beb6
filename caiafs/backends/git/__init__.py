"""The git store: objects, trees, refs and packs of one repository."""
