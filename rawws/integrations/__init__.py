"""Integrations: rawws inside other servers and frameworks. Each module needs what it is named after, and no other."""
