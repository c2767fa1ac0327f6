"""Searches without training: surrogate learning curves under a virtual clock.

The study, the rules and the decisions are the real ones; only the trainings are made up.
"""
