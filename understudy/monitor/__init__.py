"""What looks after a served model: its service level, drift of its queries, harvest of its log, and the watch."""
