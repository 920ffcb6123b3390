"""What every method, data set and metric stands on: tasks, samples, noise, images, weights, configuration, records."""
