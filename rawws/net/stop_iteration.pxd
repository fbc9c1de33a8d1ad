# What C has in the place of results.py. websocket.pxd cimports this file under the name `results`, so `results.give` in
# websocket.py is this function in the compiled twin. A `raise` of a value makes an exception, a frame and a traceback,
# half of what a message costs a coroutine; the bare `raise StopIteration` behind this makes none of them, and leaves
# what is set here.

cdef extern from "Python.h":
    void PyErr_SetObject(object kind, object value)
    bint PyTuple_Check(object value)


cdef inline int give(object value) except -1:
    # A tuple would be taken for the arguments of the exception.
    PyErr_SetObject(StopIteration, StopIteration(value) if PyTuple_Check(value) else value)
    return 0
