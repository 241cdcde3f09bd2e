"""Repositories to pull from, at a URL or in a directory: what they are, and the refs and commits that they have."""
