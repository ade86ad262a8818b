"""Who sees which rows: `split` and `hold` write the files, `assign` decides, `guard` and `decontaminate` find leaks."""
