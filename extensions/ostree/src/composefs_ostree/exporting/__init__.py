"""Writing commits into an ostree repository on this machine, from which others can pull."""
