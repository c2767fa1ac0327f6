"""Synthetic faces: a head of ellipsoids, cast into pictures in the formats of the real sets.

They stand in for 300W-LP and AFLW2000 where those are not at hand: for tests, for a first run, for
measuring. Figures on them say nothing of real faces.
"""

from headpose.data.synthetic.writer import synthesize

__all__ = ["synthesize"]
