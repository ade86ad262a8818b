"""Equal and nearly equal rows: `dedupe` drops all but the first. Method: docs/near-duplicates.md."""
