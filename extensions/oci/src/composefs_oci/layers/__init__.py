"""A layer: fetched, decompressed, taken apart into what a splitstream is made of, and read back from one."""
