"""Command line: `rawws serve`, `rawws connect`, `rawws demo`."""
