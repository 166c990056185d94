"""Mutation testing: random changes of single lines that tests should detect."""
