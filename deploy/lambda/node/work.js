// What the handlers do with a connection: a query with a parameter, and a short transaction.
'use strict'

async function work(client, event) {
  const { rows } = await client.query('SELECT $1::int AS n', [event.n ?? 0])
  await client.query('BEGIN')
  await client.query('SELECT pg_sleep(0.01)')
  await client.query('COMMIT')
  return { n: rows[0].n }
}

module.exports = { work }
