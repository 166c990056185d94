"""Random changes of single lines, to see whether tests notice them."""
