"""Learners on plain vectors, kept as plain arrays: ridge regression, Gaussian process, random forest."""
