"""Tests of Cauce."""
