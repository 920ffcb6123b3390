"""From a configuration to a record and a table: stages, training, rows, generation, scoring, tables."""
