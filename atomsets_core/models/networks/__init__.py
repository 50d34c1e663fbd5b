"""Networks and their training: set networks on features, and graph networks that are trained here."""
