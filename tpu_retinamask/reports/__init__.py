"""Reports to look at: one HTML file each, which asks nothing of a server or a network."""
