"""The shop and its payment provider, each in a process of its own, asked over HTTP, in a browser, and killed."""
