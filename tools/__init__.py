"""For the people who work on the project: phantoms and pictures."""
