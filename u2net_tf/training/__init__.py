"""Training: steps, optimizer, schedule, runs and their logs."""
