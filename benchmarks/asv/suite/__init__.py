"""The asv suite: our own speed from commit to commit."""
