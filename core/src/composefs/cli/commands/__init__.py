"""The built-in commands of cfsctl, one module each; main.py holds the table that names them."""
