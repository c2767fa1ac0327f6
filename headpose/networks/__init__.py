"""Backbones with three heads of angle bins, and the files that their weights live in."""
