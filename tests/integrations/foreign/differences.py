"""Differences: the foreign tests that fail, each with its reason."""

CLOSE = "it wants 1006, a TCP connection that ends without a Close frame; ours sends one"
REASON = "ours tells the reason as well, empty where there is none (WebSocket specification 2.5)"
HELD = "it wants the status of a denial whose body never came, or came wrong; ours has not sent it by then: 500"
INSIDE = "it reaches into the class of uvicorn: its attributes, or its type"
NETWORK = "Starlette's client hands over events; what this one is about does not go over a network"

_STARLETTE = {
    "test_rejected_connection": f"{NETWORK}: the close code of a handshake that is refused",
    "test_send_response_unsupported": f"{NETWORK}: the close code of a handshake that is refused",
    "test_websocket_headers": f"{NETWORK}: the headers are those of Starlette's client",
    "test_receive_wrong_message_type": f"{NETWORK}: an event whose type no server makes",
    "test_websocket_concurrency_pattern": "the application closes behind the disconnect: a send that must raise (2.4)",
}

# By the suite and the server that it runs against: the reason by the name of the test.
DIFFERENCES: dict[tuple[str, str], dict[str, str]] = {
    ("uvicorn", "uvicorn"): {
        "test_asgi_return_value": CLOSE,
        "test_close_transport_on_asgi_return": CLOSE,
        "test_duplicate_handshake": f"{CLOSE}, 1011",
        "test_connection_lost_before_handshake_complete": REASON,
        "test_send_close_on_server_shutdown": REASON,
        "test_server_reject_connection": REASON,
        "test_server_reject_connection_with_multibody_response": REASON,
        "test_server_reject_connection_with_response": REASON,
        "test_server_keepalive_ping_timeout": "the reason of the 1011 says for how long nothing came",
        "test_server_multiple_websocket_http_response_start_events": HELD,
        "test_server_reject_connection_with_invalid_msg": HELD,
        "test_server_reject_connection_with_missing_body": HELD,
        "test_server_reject_connection_with_invalid_status": "the body of the 500 has other words",
        "test_close_gives_up_when_the_peer_never_replies": INSIDE,
        "test_close_resumes_reads_paused_on_an_unconsumed_message": INSIDE,
        "test_close_waits_for_the_peer_close_frame": INSIDE,
        "test_connection_lost_cancels_the_pending_close_timer": INSIDE,
        "test_connection_lost_unblocks_paused_send": INSIDE,
        "test_data_frame_and_peer_close_frame_in_one_read": INSIDE,
        "test_data_frame_while_closing_does_not_pause_reads": INSIDE,
        "test_frame_after_close_handshake_is_ignored": INSIDE,
        "test_ping_while_closing": INSIDE,
        "test_send_after_peer_close_raises_client_disconnected": INSIDE,
        "test_send_respects_write_backpressure": INSIDE,
        "test_server_keepalive_disabled": INSIDE,
        "test_server_keepalive_ping_pong": INSIDE,
        "test_shutdown_while_the_close_reply_is_pending": INSIDE,
    },
    ("starlette", "uvicorn"): _STARLETTE,
    ("starlette", "rawws"): _STARLETTE,
}
