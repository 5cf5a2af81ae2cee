"""A report as a page, as JSON, as Markdown and on paper."""
