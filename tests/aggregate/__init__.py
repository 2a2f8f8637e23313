"""Tests of transcripts and conversations."""
