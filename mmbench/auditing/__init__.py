"""What printed numbers must obey, whoever printed them: rules over the rows of a CSV of published results."""
