cimport cython

from rawws.net.websocket cimport WebSocket

from .history cimport Publication

cdef int BLOCK
cdef int CONFLATE
cdef int DROP_NEWEST

cdef class PublishResult:
    cdef readonly object cursor
    cdef public bint accepted
    cdef public object refused
    cdef public bint pending
    cdef object waiter
    cdef public Py_ssize_t delivered
    cdef public Py_ssize_t queued
    cdef public Py_ssize_t conflated
    cdef public Py_ssize_t dropped
    cdef public Py_ssize_t closed
    cdef object blocked
    cdef public object excluded

cdef class Subscription:
    cdef readonly Subscriber subscriber
    cdef readonly object topic
    cdef readonly object log
    cdef readonly object policy
    cdef public bint recovered
    cdef object held
    cdef public object present
    cdef public bint watches
    cdef public bint pending
    cdef object waiter

cdef class Subscriber:
    cdef readonly object hub
    cdef readonly object receiver
    cdef readonly dict subscriptions
    cdef readonly object queue
    cdef Py_ssize_t last
    cdef readonly Py_ssize_t size
    cdef public Py_ssize_t replayed
    cdef object waiters

    cpdef bint is_slow(self) except -1
    cpdef write(self, Publication publication)
    cpdef deliver(self, Subscription subscription, Publication publication, PublishResult outcome)
    @cython.locals(kind=int)
    cpdef hold(self, Subscription subscription, Publication publication, PublishResult outcome)
    cpdef bint has_room(self, Subscription subscription, Publication publication) except -1
    cpdef keep(self, Subscription subscription, key, Publication publication)
    cpdef put(self, QueuedPublication waiting)
    @cython.locals(waiting=QueuedPublication)
    cpdef drop(self, Subscription subscription, key)
    cpdef write_form(self, Publication publication)
    @cython.locals(waiting=QueuedPublication)
    cpdef drained(self)
    @cython.locals(waiting=QueuedPublication)
    cpdef give_up(self, Subscription subscription)

cdef class QueuedPublication:
    cdef Subscription subscription
    cdef object key
    cdef Publication publication
    cdef bint counts

cdef class ObjectSubscriber(Subscriber):
    cdef object target

    cpdef write(self, Publication publication)

cdef class SocketSubscriber(Subscriber):
    cdef WebSocket ws

    cpdef bint is_slow(self) except -1
    cpdef write(self, Publication publication)

cdef class ProtocolSocketSubscriber(SocketSubscriber):
    cdef object render

    cpdef write(self, Publication publication)

cdef class EventSubscriber(Subscriber):
    cdef dict cursors
    cdef object render
    cdef Py_ssize_t skip
    cdef object stream
    cdef bint told

    cpdef write(self, Publication publication)

@cython.locals(subscription=Subscription)
cpdef fan_out(list subscriptions, Publication publication, PublishResult outcome)
