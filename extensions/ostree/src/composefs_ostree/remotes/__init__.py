"""Remotes: where a repository is, how it is reached and whom it trusts; and what is fetched from it besides objects."""
