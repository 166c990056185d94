"""A model as an HTTP server, with a web page."""
