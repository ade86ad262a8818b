"""Targets: each turns a plan into files of an orchestrator's own kind. They name steps; they run nothing."""
