"""A pool of asyncpg, which resets each connection that is given back to it."""

import asyncio

import asyncpg

ROUNDS = 20


async def main():
    async with asyncpg.create_pool(ssl=False, min_size=1, max_size=1) as pool:
        for _ in range(ROUNDS):
            async with pool.acquire() as connection:
                assert await connection.fetchval("SELECT 1") == 1
    print("all passed")


asyncio.run(main())
