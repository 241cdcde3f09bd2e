"""The host of extensions: find them, read their manifests, run one and serve it the repository's primitives.

An extension is a separate executable with NAME.json beside it; it is never imported.  docs/protocol.md is what both
sides keep to.
"""
