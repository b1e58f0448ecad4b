"""The asyncio API: clients, fleets, polling."""
