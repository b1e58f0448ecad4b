"""Bytes on a wire: addresses, how they are opened, and the protocol object that asyncio's transports talk to."""
