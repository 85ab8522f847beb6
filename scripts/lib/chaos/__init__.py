"""Chaos on a real mount: kills, power cuts, concurrent writers and bad weather, and whether anything was lost."""
