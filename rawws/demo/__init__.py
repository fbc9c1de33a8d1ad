"""The demo: one page, an echo and a chat room on one port, written as a user of this library would write it."""
