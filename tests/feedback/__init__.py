"""Tests of the feedback loop."""
