"""Where rows come from: files in many formats, packed and remote ones, databases, the hub. `collect` is the loop."""
