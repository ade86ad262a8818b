"""Web sites as a source, day by day: `crawl` goes through the pages, `page` makes rows of them."""
