"""Searches: spec, study, early stopping, one trial's life, checkpoints, MLflow, promotion."""
