# What C has in the place of Python's `threading`: who this thread is, for one comparison. threads.pxd cimports this file
# under the name `threading`, so `threading.get_ident` in threads.py is this function in the compiled twin.
from cpython.pythread cimport PyThread_get_thread_ident


cdef inline unsigned long get_ident() noexcept:
    return PyThread_get_thread_ident()
