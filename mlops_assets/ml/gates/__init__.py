"""Limits a candidate must keep before it is compared with the champion."""
