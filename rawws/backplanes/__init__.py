"""Backplanes: what joins the hubs of several servers (the contract, and one module for each engine)."""
