"""The asyncio face: clients, fleets, polling."""
