"""Registries: the protocol of the OCI distribution specification, spoken with ``http.client``."""
