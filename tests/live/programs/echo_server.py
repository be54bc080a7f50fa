"""An asyncio echo server on port sys.argv[1] that ends after sys.argv[2] connections."""

import asyncio
import sys


async def main() -> None:
    left = int(sys.argv[2])
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        left -= 1
        if not left:
            done.set()

    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]))
    async with server:
        await done.wait()


asyncio.run(main())
