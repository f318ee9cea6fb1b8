"""Cross-validation, and the search for a better recipe."""
