"""Documents for people: blocks of content, written as HTML and as Markdown."""
