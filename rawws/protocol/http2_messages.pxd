# Compiled as it is, without C types: str and list methods are most of its work, and the rest gains a third.
