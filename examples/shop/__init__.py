"""Two services that trust each other with nothing but HTTP: a shop, and a provider who takes its customers' money."""
