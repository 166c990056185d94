"""Tools for developers: phantoms, drawings, measurements and mutants."""
