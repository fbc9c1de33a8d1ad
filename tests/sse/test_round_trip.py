"""For all events and all bytes: what is encoded is decoded, and how it is cut into pieces makes no difference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rawws_sse import Decoder, Event, encode
from tests.sse.streams import Outcome, bytewise, cut, events, examples, fed, normalised, standard, streams, texts


@examples(300)
@given(event=events(texts))
def test_a_decoded_event_is_the_one_that_was_encoded(event: Event) -> None:
    decoder = Decoder(max_size=None)
    assert decoder.receive(encode(event)) == [normalised(event)]
    assert decoder.retry == event.retry
    assert decoder.last_event_id == (event.id or "")


@examples(200)
@given(sent=st.lists(events(texts | st.none()), max_size=5))
def test_a_stream_has_the_events_that_have_data(sent: list[Event]) -> None:
    last_event_id = ""
    expected = []
    for event in sent:
        last_event_id = last_event_id if event.id is None else event.id
        if event.data is not None:
            expected.append(normalised(event, last_event_id))
    retries = [event.retry for event in sent if event.retry is not None]
    stream = b"".join(map(encode, sent))
    assert fed([stream], None) == Outcome(expected, last_event_id, retries[-1] if retries else None)


@examples(100)
@given(event=events(texts))
def test_what_is_decoded_can_be_sent_on(event: Event) -> None:
    [received] = Decoder().receive(encode(event))
    assert Decoder().receive(encode(received)) == [received]


@examples(500)
@given(data=st.data(), stream=streams())
def test_any_pieces_come_to_what_the_standard_says(data: st.DataObject, stream: bytes) -> None:
    expected = standard(stream)
    assert fed([stream]) == expected
    assert fed(bytewise(stream)) == expected
    assert fed(data.draw(cut(stream))) == expected


@examples(300)
@given(data=st.data(), stream=streams(), max_size=st.integers(1, 20))
def test_any_pieces_meet_the_limit_at_the_same_place(data: st.DataObject, stream: bytes, max_size: int) -> None:
    whole = fed([stream], max_size)
    assert fed(bytewise(stream), max_size) == whole
    assert fed(data.draw(cut(stream)), max_size) == whole
    unlimited = fed([stream], None)
    if whole.too_large:
        assert whole.events == unlimited.events[: len(whole.events)]
    else:
        assert whole == unlimited
