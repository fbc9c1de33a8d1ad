"""Torture: servers and engines that are killed and started again, and what their clients hear meanwhile."""
