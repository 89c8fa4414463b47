"""Tests of the readers of landing folders."""
