"""A WebSocket server that speaks first and echoes, and a client that tries it through a mapping (python3-websockets).

Usage: websocket.py serve PORT | visit PORT
"""

import asyncio
import os
import sys

import websockets

LARGEST = 1 << 20


async def echo(connection, _path=None):
    await connection.send("welcome")
    async for message in connection:
        if message == "close":
            return await connection.close(4000, "as you wish")
        await connection.send(message)


async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", port, max_size=2 * LARGEST):
        await asyncio.Future()


async def visit(port, sizes, pause=0):
    async with websockets.connect(f"ws://127.0.0.1:{port}/", max_size=2 * LARGEST) as connection:
        assert await connection.recv() == "welcome"
        for size in sizes:
            for message in (os.urandom(size), "x" * size):
                await connection.send(message)
                assert await connection.recv() == message, f"{size} bytes came back changed"
        await asyncio.wait_for(await connection.ping(), 10)
        await asyncio.sleep(pause)
        # Many messages on their way at once.
        messages = [os.urandom(1000) for _ in range(200)]
        await asyncio.gather(*(connection.send(message) for message in messages))
        for message in messages:
            assert await connection.recv() == message
    assert connection.close_code == 1000, connection.close_code


async def told_to_close(port):
    async with websockets.connect(f"ws://127.0.0.1:{port}/") as connection:
        assert await connection.recv() == "welcome"
        await connection.send("close")
        try:
            await connection.recv()
        except websockets.ConnectionClosed as closed:
            assert (connection.close_code, connection.close_reason) == (4000, "as you wish"), closed
        else:
            raise AssertionError("it goes on")


async def all_of_it(port):
    sizes = [0, 1, 125, 126, 4096, 65535, 65536, 65532, 16380, LARGEST]
    await visit(port, sizes, pause=3)
    for _ in range(30):
        await visit(port, [10])
    await asyncio.gather(*(visit(port, sizes) for _ in range(20)))
    await told_to_close(port)


role, number = sys.argv[1], int(sys.argv[2])
asyncio.run({"serve": serve, "visit": all_of_it}[role](number))
if role == "visit":
    print("all is well")
