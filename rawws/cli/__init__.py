"""Ask line: `rawws serve`, `rawws connect`, `rawws demo`."""
