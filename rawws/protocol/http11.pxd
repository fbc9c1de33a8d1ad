cimport cython

# str and list methods are most of its work: of that, what is done for each line has types.
cdef dict _KNOWN_NAMES

@cython.locals(line=str, name=str, colon=str, value=str, key=str, values=list)
cdef object _add_lines(list items, dict index, list lines, bint checked)
