"""The report of a campaign of several properties: words, figures, page."""
