"""Files that are not captures."""

NOT_CAPTURES = {
    "empty": b"",
    "blank": b" \n",
    "png": b"\x89PNG\r\n\x1a\n" * 500,
    "text": b"plain text",
    "hex without a frame": b"eb90",
    "json": b"[1, 2]",
    "lines without a frame": b'{"hex": "eb90"}',
    "zeros": bytes(5_000_000),
}
